"""The real readers as processes of the world: the thread of `push`, calls of `pull`, and tails of trades."""

from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, ReplyError
from bookbus.consumers.bus.trades import BusTradeTail
from bookbus.consumers.reading import Reading
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisAddress, RedisServer, parse_redis_url
from bookbus.schemas.trade import Trade
from tests.simulation.world import ThreadProcess, running_threads

OnReading = Callable[[str, Reading], None]
"""Gets a standard symbol and what a reader says about it."""

_PULL_INTERVAL = 0.4


class BookReader:
    """A provider in a process of its own, which asks for every book again and again."""

    def __init__(
        self, process: ThreadProcess, host: str, symbols: list[str], mode: Mode, on_reading: OnReading
    ) -> None:
        self.process = process
        self._symbols = symbols
        self._mode = mode
        self._on_reading = on_reading
        with process.running():
            self.provider = RedisMarketDataProvider(f"redis://{host}:6379/0", "binance", symbols, mode=mode)
        if mode == "push":
            with process.running():
                reader: Any = self.provider._new_reader()
            self.provider._reader = reader
            self.provider._changes.open()
            reader._was_ready = True  # goes on after a failure at the start, as one that was connected before
            process.spawn(reader._run)
        else:
            process.spawn(self._poll)

    def look(self) -> None:
        """Read every book of the thread now."""
        if self._mode == "push" and self.process.alive and not self.process.paused:
            with self.process.running():
                self._read()

    def _read(self) -> None:
        for symbol in self._symbols:
            self._on_reading(symbol, self.provider.read(symbol))

    def _poll(self) -> None:
        while True:
            try:
                self.provider.start()
                break
            except BusConnectionError:
                self.process.sleep(_PULL_INTERVAL)
        while True:
            self._read()
            self.process.sleep(_PULL_INTERVAL)


class TradeReader:
    """A tail of one symbol's trades in a process of its own."""

    def __init__(self, process: ThreadProcess, symbol: str, native: str) -> None:
        self.process = process
        self.tail = BusTradeTail(parse_redis_url("redis://bus:6379/0"), RedisNames("md"), "binance", symbol, native)
        self.taken: list[Trade] = []
        self.since = float("inf")
        """The true time from which trades must come: when it saw a first one, since a stream may vanish before that."""
        self.told = False
        """Whether it ever said that trades may be missing."""
        process.spawn(self._run)

    def _run(self) -> None:
        self.tail.start()
        while True:
            self.taken += self.tail.take()
            if self.tail._seq is not None and self.tail._seq.number:
                self.since = min(self.since, self.process.world.now)
            self.told = self.told or self.tail.missed + self.tail.resets > 0
            self.process.sleep(0.5)


class TailClient:
    """In place of the control client of trades: the two commands of a tail, over a connection of the world."""

    def __init__(self, address: RedisAddress, timeout: float, *, decode_responses: bool = False) -> None:
        self._server = address.servers[0]
        self._timeout = timeout
        self._connection: BusConnection | None = None

    def xrevrange(self, stream: str, count: int) -> list[Any]:
        return _entries(self._ask("XREVRANGE", stream, "+", "-", "COUNT", count))

    def xread(self, streams: dict[str, str], count: int) -> list[Any]:
        ((stream, last),) = streams.items()
        reply = self._ask("XREAD", "COUNT", count, "STREAMS", stream, last)
        return [] if reply is None else [[stream, _entries(entries)] for stream, entries in reply]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _ask(self, *command: str | int) -> Any:
        try:
            if self._connection is None:
                self._connection = BusConnection(self._server, "tail", self._timeout)
            (reply,) = self._connection.ask([command], self._timeout)
        except BusConnectionError as error:
            self.close()
            self._connection = None
            raise RedisConnectionError(str(error)) from error
        if isinstance(reply, ReplyError):
            raise ResponseError(str(reply))
        return reply


def _entries(reply: Any) -> list[Any]:
    texts = ([part.decode() for part in fields] for _, fields in reply)
    ids = (entry.decode() for entry, _ in reply)
    return [(entry, dict(zip(text[::2], text[1::2], strict=True))) for entry, text in zip(ids, texts, strict=True)]


def connect_socket(server: RedisServer, limit: float) -> Any:
    """In place of the function that opens a reader's socket."""
    try:
        return running_threads().connect(str(server.host), limit)
    except OSError as error:
        raise BusConnectionError(f"{server.masked}: {error}") from error
