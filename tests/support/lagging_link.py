"""A TCP proxy that delivers the server's bytes late, as a slow replication link does."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator


class LaggingLink:
    """Forwards connections to `port` of this machine; what that sends arrives `lag` seconds later, in order."""

    def __init__(self, port: int) -> None:
        self.lag = 0.0
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets = [self._listening]
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        self._over.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: "object", *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                self._start(self._receive, client, None, server)
                self._start(self._receive, server, late, client)
                self._start(self._deliver, late, client)

    def _receive(
        self, source: socket.socket, late: "queue.SimpleQueue[tuple[float, bytes]] | None", target: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if late is None:
                    target.sendall(data)
                else:
                    late.put((time.monotonic() + self.lag, data))
        if late is not None:
            late.put((0.0, b""))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _deliver(self, late: "queue.SimpleQueue[tuple[float, bytes]]", target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = late.get()
                if not data or self._over.wait(max(due - time.monotonic(), 0.0)):
                    return
                target.sendall(data)


@contextlib.contextmanager
def lagging_link(port: int) -> Iterator[LaggingLink]:
    link = LaggingLink(port)
    try:
        yield link
    finally:
        link.close()
