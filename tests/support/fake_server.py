"""A Redis server in this process, for tests of readers."""

import contextlib
import threading
from collections.abc import Iterator

from fakeredis import TcpFakeServer
from fakeredis._commands import command
from fakeredis._socket import FakeSocket


def role(_: FakeSocket) -> list[object]:
    return [b"master", 0, []]


# fakeredis does not know the command, and closes a connection after an error.
FakeSocket.role = command(())(role)  # type: ignore[attr-defined]


@contextlib.contextmanager
def fake_server() -> Iterator[str]:
    """The URL of a server that ends with the context."""
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
