"""Virtual time: one true time, a clock for each process, a network between processes, and the order of all events.

Every process runs the product's own code. It runs alone, and true time stands still meanwhile: so one seed gives one
order of events. Tasks run on a `VirtualLoop`; threads take turns and give the turn back whenever they wait.
"""

import asyncio
import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EPOCH = 1_700_000_000.0
"""The true time of day at the start, in seconds since 1970."""


class Killed(BaseException):
    """Ends a thread of a process that was killed: nothing in the product catches it."""


class Clock:
    """One machine's clocks: a monotonic one, and the time of day, which may jump. `rate` is their common speed."""

    def __init__(self, world: "World", rate: float = 1.0, offset: float = 0.0) -> None:
        self.rate = rate
        self._world = world
        self._begin = 1000.0 * world.rng.random()
        self.offset = offset
        """Seconds by which the time of day is ahead of the true one, apart from the drift."""

    def monotonic(self) -> float:
        return self._begin + self._world.now * self.rate

    def wall(self) -> float:
        return EPOCH + self.offset + self._world.now * self.rate

    def true_time(self, monotonic: float) -> float:
        return (monotonic - self._begin) / self.rate


class World:
    """True time, the events to come, and the network. `trace` is the record of what happened."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.trace: list[str] = []
        self.current: Process | None = None
        """The process whose code runs now: its clock is the one that code reads."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._cuts: set[tuple[str, str]] = set()
        self._pipes: list[Pipe] = []
        self.processes: list[Process] = []

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, act))

    def after(self, delay: float, act: Callable[[], None]) -> None:
        self.at(self.now + delay, act)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def cut(self, source: str, target: str) -> None:
        """Hold what goes from one host to another until `heal`; TCP repeats it then."""
        self._cuts.add((source, target))

    def heal(self, source: str, target: str) -> None:
        self._cuts.discard((source, target))
        self._pipes = [pipe for pipe in self._pipes if not pipe.ended]
        for pipe in list(self._pipes):
            pipe.pump()

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def pipe(self, source: "Process", target: "Process", receive: Callable[[Any], None]) -> "Pipe":
        pipe = Pipe(self, source, target, receive)
        self._pipes.append(pipe)
        return pipe


class Process:
    """What has a clock, can be paused and can be killed. Its `host` is its place on the network."""

    def __init__(self, world: World, host: str, clock: Clock) -> None:
        self.world = world
        self.host = host
        self.clock = clock
        self.paused = False
        self.alive = True
        self._backlog: deque[Callable[[], None]] = deque()
        self._connections: list[Connection] = []
        world.processes.append(self)

    def enter(self, act: Callable[[], None]) -> None:
        """Run something that happens to this process now, or once it is resumed."""
        if not self.alive:
            return
        if self.paused:
            self._backlog.append(act)
            return
        with self.running():
            act()
            self.turn()

    @contextmanager
    def running(self) -> Iterator[None]:
        before, self.world.current = self.world.current, self
        try:
            yield
        finally:
            self.world.current = before

    def turn(self) -> None:
        """Let the process do all that it can do now."""

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        backlog, self._backlog = self._backlog, deque()
        with self.running():
            for act in backlog:
                act()
            if self.alive:
                self.turn()

    def kill(self) -> None:
        """End at once; the kernel closes the connections."""
        self.alive = False
        self._backlog.clear()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def own(self, connection: "Connection") -> None:
        self._connections = [one for one in self._connections if not one.ended]
        self._connections.append(connection)


class Pipe:
    """One direction of a connection: in order, with a latency, held while the network is cut."""

    def __init__(self, world: World, source: Process, target: Process, receive: Callable[[Any], None]) -> None:
        self.ended = False
        self._world = world
        self._source = source
        self._target = target
        self._receive = receive
        self._rng = random.Random(world.rng.getrandbits(32))
        self._queue: deque[tuple[float, Any]] = deque()
        self._last = 0.0

    def send(self, data: Any) -> None:
        if self.ended:
            return
        self._last = max(self._last, self._world.now + 0.0005 + 0.004 * self._rng.random())
        self._queue.append((self._last, data))
        self._world.at(self._last, self.pump)

    def end(self, *, drop: bool = False) -> None:
        """The peer sees the end after what was sent, or at once instead of what is held back by a cut."""
        if drop and self._world.is_cut(self._source.host, self._target.host):
            self._queue.clear()
        self.send(None)

    def pump(self) -> None:
        while self._queue and self._queue[0][0] <= self._world.now:
            if self._world.is_cut(self._source.host, self._target.host):
                return
            _, data = self._queue.popleft()
            if data is None:
                self.ended = True
            self._target.enter(lambda data=data: self._receive(data))  # type: ignore[misc]


class Connection:
    """One end of a connection: `send`, `close`, and what arrives goes to `receive`; None is the end."""

    def __init__(self) -> None:
        self.ended = False
        self.receive: Callable[[Any], None] = lambda _: None
        self.out: Pipe

    def send(self, data: Any) -> None:
        if not self.ended:
            self.out.send(data)

    def close(self, *, drop: bool = False) -> None:
        if not self.ended:
            self.ended = True
            self.out.end(drop=drop)

    def deliver(self, data: Any) -> None:
        if self.ended:
            return
        if data is None:
            self.ended = True
        self.receive(data)


class Listener(Process):
    """A process that others connect to."""

    def accept(self, connection: Connection, peer: Process) -> None:
        """Serve a new connection."""
        raise NotImplementedError


def connect(
    client: Process, server: Callable[[], Listener | None], done: Callable[["Connection | None"], None]
) -> None:
    """Open a connection; `done` gets it within the client, or None if it is refused. Tried again while cut."""
    world = client.world

    def arrive() -> None:
        target = server()
        if target is not None and world.is_cut(client.host, target.host):
            world.after(0.2, arrive)
            return
        if target is None or not target.alive:
            client.enter(lambda: done(None))
            return
        mine, theirs = Connection(), Connection()
        mine.out = world.pipe(client, target, theirs.deliver)
        theirs.out = world.pipe(target, client, mine.deliver)
        # The kernel accepts for a paused process too.
        target.own(theirs)
        target.accept(theirs, client)
        if world.is_cut(target.host, client.host):
            theirs.close()
            world.after(0.2, arrive)
            return
        client.own(mine)
        client.enter(lambda: done(mine))

    world.after(0.002 + 0.003 * world.rng.random(), arrive)


# --- processes with a loop ---------------------------------------------------------------------------------------


class _NoSelector:
    """The loop waits for nothing: the world wakes it."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on a process's clock, which `TaskProcess` runs as far as it goes."""

    def __init__(self, process: "TaskProcess") -> None:
        super().__init__()
        self._process = process
        self._selector = _NoSelector()
        self._clock_resolution = 1e-6
        self.set_exception_handler(process.report)

    def time(self) -> float:
        return self._process.clock.monotonic()

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_ready(self) -> float | None:
        """Run until nothing can go on. Returns the loop's time of the next timer."""
        asyncio._set_running_loop(self)
        try:
            limit = self.time() + self._clock_resolution
            while self._ready or (self._scheduled and self._scheduled[0]._when < limit):  # type: ignore[attr-defined]
                self._run_once()  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(None)
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        return scheduled[0]._when if scheduled else None

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """As asyncio's, to a process of the world whose name is the host."""
        connection = await self._process.connect(str(host))
        protocol = protocol_factory()
        transport = VirtualTransport(self, connection, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class VirtualTransport(asyncio.Transport):
    """A socket of a process with a loop."""

    def __init__(self, loop: VirtualLoop, connection: Connection, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._connection = connection
        self._protocol = protocol
        self._closing = False
        connection.receive = self._receive

    def write(self, data: Any) -> None:
        self._connection.send(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._end(drop=False)

    def abort(self) -> None:
        self._end(drop=True)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        raise NotImplementedError("no reader of the product pauses reading")

    def resume_reading(self) -> None:
        pass

    def _receive(self, data: bytes | None) -> None:
        if data is None:
            self._loop.call_soon(self._end)
        elif not self._closing:
            self._loop.call_soon(self._hand_over, data)

    def _hand_over(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def _end(self, *, drop: bool = False) -> None:
        if not self._closing:
            self._closing = True
            self._connection.close(drop=drop)
            self._loop.call_soon(self._protocol.connection_lost, None)


class TaskProcess(Process):
    """A process that runs a coroutine. `hosts` finds the server of a host name."""

    def __init__(
        self, world: World, host: str, clock: Clock, hosts: Callable[[str], Callable[[], Listener | None]]
    ) -> None:
        super().__init__(world, host, clock)
        self.loop = VirtualLoop(self)
        self.failures: list[str] = []
        self._hosts = hosts
        self._wake_at = -1.0
        self._main: asyncio.Task[None] | None = None

    def start(self, main: Callable[[], Any]) -> None:
        """`main()` is called within the loop and returns the coroutine of the whole process."""

        async def run() -> None:
            await main()

        self._main = self.loop.create_task(run())
        self.enter(lambda: None)

    @property
    def ended(self) -> BaseException | None:
        """The bug that ended it."""
        if self._main is None or not self._main.done() or self._main.cancelled():
            return None
        return self._main.exception()

    def turn(self) -> None:
        due = self.loop.run_ready()
        if due is not None and self.alive:
            at = max(self.clock.true_time(due), self.world.now) + 1e-6
            if not self.world.now < self._wake_at <= at:
                self._wake_at = at
                self.world.at(at, lambda: self._wake(at))

    def kill(self) -> None:
        super().kill()
        if self.loop.is_closed():
            return
        # Ends every coroutine, without any effect on others: its connections are closed.
        with self.running():
            for _ in range(10):
                left = asyncio.all_tasks(self.loop)
                if not left:
                    break
                for task in left:
                    task.cancel()
                self.loop.run_ready()
                for timer in list(self.loop._scheduled):  # type: ignore[attr-defined]
                    if not timer._cancelled:
                        self.loop._ready.append(timer)  # type: ignore[attr-defined]
                        timer._scheduled = False
                self.loop._scheduled.clear()  # type: ignore[attr-defined]
            self.loop.run_ready()
        self.loop.close()

    async def connect(self, host: str) -> Connection:
        future: asyncio.Future[Connection | None] = self.loop.create_future()

        def done(connection: Connection | None) -> None:
            if not future.done():
                future.set_result(connection)
            elif connection is not None:
                connection.close()

        if not self.alive:
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, self._hosts(host), done)
        connection = await future
        if connection is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return connection

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.alive:
            self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = -1.0
            self.enter(lambda: None)


# --- processes with threads --------------------------------------------------------------------------------------


class ThreadProcess(Process):
    """A process with threads, of which one at a time runs, until it waits."""

    def __init__(
        self, world: World, host: str, clock: Clock, hosts: Callable[[str], Callable[[], Listener | None]]
    ) -> None:
        super().__init__(world, host, clock)
        self.failures: list[str] = []
        self._hosts = hosts
        self._threads: list[_Turns] = []

    def spawn(self, target: Callable[[], None]) -> None:
        turns = _Turns(self, target)
        self._threads.append(turns)
        self.enter(lambda: None)

    def turn(self) -> None:
        for thread in self._threads:
            if self.alive and not thread.ended:
                thread.run()

    def wait(self, until: float | None = None) -> None:
        """Called by a thread: let others run until something happens or the monotonic clock shows `until`."""
        turns = _Turns.mine()
        if until is not None:
            at = self.clock.true_time(until) + 1e-6
            if turns.wake_at != at:
                turns.wake_at = at
                self.world.at(at, lambda: self.enter(lambda: None))
        turns.give_back()
        if not self.alive:
            raise Killed

    def sleep(self, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.wait(until)

    def connect(self, host: str, limit: float) -> "VirtualSocket":
        deadline = self.clock.monotonic() + limit
        result: list[Connection | None] = []
        given_up = False

        def done(connection: Connection | None) -> None:
            if given_up and connection is not None:
                connection.close()
            result.append(connection)

        connect(self, self._hosts(host), done)
        while not result:
            if self.clock.monotonic() >= deadline:
                given_up = True
                raise TimeoutError("timed out")
            self.wait(deadline)
        if result[0] is None:
            raise ConnectionRefusedError(111, "connection refused")
        return VirtualSocket(self, result[0])

    def kill(self) -> None:
        super().kill()
        with self.running():
            for thread in self._threads:
                if not thread.ended:
                    thread.run()


class _Turns:
    """One thread, which runs only between `run` and `give_back`."""

    _local = threading.local()

    def __init__(self, process: ThreadProcess, target: Callable[[], None]) -> None:
        self.ended = False
        self.wake_at = -1.0
        self._process = process
        self._target = target
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    @classmethod
    def mine(cls) -> "_Turns":
        turns: _Turns = cls._local.turns
        return turns

    def run(self) -> None:
        self._go.release()
        self._back.acquire()

    def give_back(self) -> None:
        self._back.release()
        self._go.acquire()

    def _run(self) -> None:
        self._local.turns = self
        self._go.acquire()
        try:
            if self._process.alive:
                self._target()
        except Killed:
            pass
        except BaseException as error:
            self._process.failures.append(repr(error))
        finally:
            self.ended = True
            self._back.release()


class VirtualSocket:
    """A socket of a thread: what `BusConnection` uses of one."""

    def __init__(self, process: ThreadProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._buffer = bytearray()
        self._ended = False
        self._timeout: float | None = None
        connection.receive = self._receive

    @property
    def readable(self) -> bool:
        return bool(self._buffer) or self._ended

    def recv(self, size: int) -> bytes:
        if not self.readable:
            if self._timeout == 0:
                raise BlockingIOError
            now = self._process.clock.monotonic
            deadline = now() + (self._timeout or 0.0)
            while not self.readable:
                if now() >= deadline:
                    raise TimeoutError("timed out")
                self._process.wait(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def sendall(self, data: bytes) -> None:
        if self._connection.ended:
            raise BrokenPipeError(32, "broken pipe")
        self._connection.send(bytes(data))

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setblocking(self, blocking: bool) -> None:
        self._timeout = None if blocking else 0.0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._ended = True
        self._connection.close()

    def _receive(self, data: bytes | None) -> None:
        if data is None:
            self._ended = True
        else:
            self._buffer += data


class VirtualSelector:
    """Waits for sockets of threads; another file, such as the reader's wake-up, never becomes readable."""

    def __init__(self) -> None:
        self._keys: list[Any] = []

    def __enter__(self) -> "VirtualSelector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def register(self, fileobj: Any, events: int, data: Any = None) -> None:
        self._keys.append(fileobj)

    def close(self) -> None:
        self._keys.clear()

    def select(self, timeout: float | None = None) -> list[Any]:
        process = running_threads()
        deadline = None if timeout is None else process.clock.monotonic() + timeout
        while True:
            found = [(_Key(one), 1) for one in self._keys if getattr(getattr(one, "_socket", None), "readable", False)]
            if found or (deadline is not None and process.clock.monotonic() >= deadline):
                return found
            process.wait(deadline)


class _Key:
    def __init__(self, fileobj: Any) -> None:
        self.fileobj = fileobj


# --- the clock that the product's modules read --------------------------------------------------------------------

WORLDS: list[World] = []
"""The world that runs now."""


def running() -> Process:
    process = WORLDS[-1].current
    assert process is not None, "code of the product runs in a process"
    return process


def running_threads() -> ThreadProcess:
    process = running()
    assert isinstance(process, ThreadProcess)
    return process


class VirtualTime:
    """What the product's modules get in place of the module `time`: the clock of the running process."""

    def monotonic(self) -> float:
        return running().clock.monotonic()

    def perf_counter(self) -> float:
        return running().clock.monotonic()

    def clock_gettime(self, _: int) -> float:
        return running().clock.monotonic()

    def time(self) -> float:
        return running().clock.wall()

    def time_ns(self) -> int:
        return round(running().clock.wall() * 1e6) * 1000

    def monotonic_ns(self) -> int:
        return round(running().clock.monotonic() * 1e9)

    def sleep(self, seconds: float) -> None:
        running_threads().sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
