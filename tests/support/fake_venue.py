"""A venue and books whose events a test chooses, for tests of the shell around the pure core."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import BookUnchanged, BookUpdated, Event, SnapshotNeeded, Topic
from bookbus.feeders.books.history import BookHistory
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.binance_protocol import BinanceProtocol, decode_answer, request_of
from bookbus.feeders.feed import Feed
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import (
    ControlMessage,
    FeedMode,
    FeedOptions,
    MarketStatus,
    VenueAudit,
    VenueProtocol,
    VenueSnapshots,
    VenueTops,
)
from bookbus.schemas.instruments import EXCHANGES, Instrument, guess_instrument
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from bookbus.schemas.trade import Trade

Value = TypeVar("Value")

BIDS: Levels = ((99.0, 1.0), (98.0, 2.0))
ASKS: Levels = ((101.0, 1.5), (102.0, 2.5))


def updated(native: str = "BTCUSDT", update_id: int = 1, bids: Levels = BIDS, topic: Topic = "book") -> BookUpdated:
    """A book that changed."""
    return BookUpdated(native, update_id, 1_700_000_000_000_000 + update_id, bids, ASKS, topic)


class FakeBookSet(BookSet):
    """Hands out, frame by frame, the events a test lined up in `says`; `answers` is the same for snapshots."""

    def __init__(self, natives: Iterable[str] = ("BTCUSDT", "ETHUSDT")) -> None:
        self.arbiter = None
        self.known: Sequence[str] = tuple(natives)
        self.ids: dict[tuple[str, Topic], int | None] = {}
        self.says: deque[Sequence[Event] | WebSocketProtocolError] = deque()
        self.answers: deque[Sequence[Event] | WebSocketProtocolError] = deque()
        self.on_loss: Sequence[Event] = ()
        self.requests: list[ControlMessage] = [ControlMessage(1, "subscribe")]
        self.others: list[ControlMessage] = []
        """What a request that was refused is replaced by."""
        self.asked: list[Sequence[str] | None] = []
        self.frames: list[tuple[bytes, int]] = []
        self.expected: list[str] = []
        self.behind: set[str] = set()
        self.connections = 0
        self.taken: list[tuple[str, int, bytes]] = []
        self.lines = set()
        self.histories: dict[str, BookHistory] = {}
        self.invalidated: list[tuple[str, str]] = []

    @property
    def natives(self) -> Sequence[str]:
        return self.known

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        return self.ids.get((native, topic))

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        return native in self.behind

    def subscribe(self, again: Sequence[str] = (), dropped: Collection[str] = ()) -> list[ControlMessage]:
        everything = [native for native in self.known if native not in dropped] if dropped else None
        self.asked.append(again or everything)
        return self.requests

    def subscribe_without(self, native: str, request_id: int) -> list[ControlMessage]:
        return self.others

    def new_line(self, slot: int) -> int:
        self.connections += 1
        return self.connections

    def line_up(self, line: int) -> None:
        self.lines.add(line)

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        self.lines.discard(line)
        return self.on_loss

    def receive(self, frame: bytes, line: int = 0, received_us: int = 0) -> Sequence[Event]:
        self.frames.append((frame, line))
        return self._said(self.says)

    def snapshot_requested(self, native: str) -> None:
        self.expected.append(native)

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        self.taken.append((native, limit, body))
        return self._said(self.answers)

    def start_history(self, native: str) -> BookHistory | None:
        return self.histories.get(native)

    def invalidate(self, native: str, reason: str, topic: Topic = "book") -> Sequence[Event]:
        self.invalidated.append((native, reason))
        return self.on_loss

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        return self._said(self.answers)

    def _said(self, source: deque[Sequence[Event] | WebSocketProtocolError]) -> Sequence[Event]:
        said = source.popleft() if source else ()
        if isinstance(said, WebSocketProtocolError):
            raise said
        for event in said:
            if isinstance(event, BookUpdated | BookUnchanged):
                self.ids[event.native, event.topic] = event.update_id
        return said


class FakeSnapshots:
    """Remembers what it was asked for. `soon` and `pending` say of which symbols an answer is on its way."""

    def __init__(self) -> None:
        self.asked: list[SnapshotNeeded] = []
        self.pending: set[str] = set()
        self.soon: set[str] = set()

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        self.asked.append(need)

    def is_pending(self, native: str) -> bool:
        return native in self.pending

    def answers_soon(self, native: str) -> bool:
        return native in self.soon


class FakeVenue:
    """Binance's messages, no sockets; `fetch` of a snapshot waits for the test to `answer` or `fail` it."""

    exchange = EXCHANGES["binance"]
    ws_url = "ws://127.0.0.1:1"
    rest_url = "http://127.0.0.1:1"
    networks: Mapping[str, Sequence[str]] = {"live": ("exchange",)}
    lifetime: float | None = None
    modes: Sequence[FeedMode] = ("diff",)
    topics: Sequence[Topic] = ("book", "quote", "trades")
    keepalive: str | None = None
    audit: VenueAudit | None = None
    tops: VenueTops | None = None
    decode = staticmethod(decode_answer)
    request_of = staticmethod(request_of)

    def __init__(self) -> None:
        self.snapshots: VenueSnapshots | None = self
        self.requests: list[tuple[SnapshotNeeded, asyncio.Future[bytes]]] = []
        self.metadata: bytes | Exception = b"{}"
        self.turnover: dict[str, float] | Exception = {}
        self.listed: list[Instrument] | Exception = []

    def stream_url(self, ws_url: str) -> str:
        return ws_url

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> VenueProtocol:
        return BinanceProtocol(natives, options, recorded=recorded)

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        return [natives]

    def rest(self, rest_url: str, timeout: float) -> RestClient:
        return RestClient(rest_url, WeightBudget(6000), timeout)

    async def fetch(self, rest: RestClient, need: SnapshotNeeded) -> tuple[str, bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.requests.append((need, answer))
        return f"http://venue/{need.native}", await answer

    async def fetch_metadata(self, rest: RestClient) -> bytes:
        return _value(self.metadata)

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        return _value(self.turnover)

    async def fetch_trading(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, MarketStatus]:
        return {}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        return _value(self.listed)

    @property
    def running(self) -> list[str]:
        """Symbols of the requests that wait for their answer, in the order they were started."""
        return [need.native for need, answer in self.requests if not answer.done()]

    def answer(self, native: str, body: bytes = b"body") -> None:
        """Answer the request for this symbol that waits."""
        self._waiting(native).set_result(body)

    def fail(self, native: str, error: Exception) -> None:
        """End the request for this symbol that waits with an error."""
        self._waiting(native).set_exception(error)

    def _waiting(self, native: str) -> "asyncio.Future[bytes]":
        return next(answer for need, answer in self.requests if need.native == native and not answer.done())


def _value(value: Value | Exception) -> Value:
    if isinstance(value, Exception):
        raise value
    return value


class Collected:
    """A Feed over fakes, and everything it told."""

    def __init__(self, *natives: str) -> None:
        self.book_set = FakeBookSet(natives or ("BTCUSDT", "ETHUSDT"))
        self.snapshots = FakeSnapshots()
        self.books: list[tuple[Topic, OrderBookSnapshot]] = []
        self.trades: list[Trade] = []
        self.feed = Feed(
            exchange="binance",
            books=self.book_set,
            options=FeedOptions(depth=20),
            instrument_of=partial(guess_instrument, EXCHANGES["binance"]),
            on_snapshot=lambda book, topic: self.books.append((topic, book)),
            on_trade=self.trades.append,
            snapshots=self.snapshots,
        )

    def receive(self, *events: Event, received_us: int = 7_000_000) -> Sequence[Event]:
        """One frame that says this."""
        self.book_set.says.append(events)
        return self.feed.receive(b"frame", 0, received_us)

    def answer(self, *events: Event, native: str = "BTCUSDT") -> None:
        """The answer to a snapshot request that says this."""
        self.book_set.answers.append(events)
        self.feed.apply_snapshot(native, 100, b"answer", 8_000_000)

    @property
    def published(self) -> list[tuple[int, str]]:
        """Update id and state of each book told, in order."""
        return [(book.update_id, book.state) for _, book in self.books]
