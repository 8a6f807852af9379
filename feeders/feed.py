"""The books of one set of symbols: events turned into snapshots, trades and requests."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from msgspec.structs import replace

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import (
    Acknowledged,
    BookLost,
    BookUnchanged,
    BookUpdated,
    ClosingSoon,
    Event,
    Ignored,
    KnownWindowLeft,
    PrecisionLost,
    Refused,
    ResubscribeNeeded,
    SnapshotNeeded,
    Topic,
    TradeHappened,
)
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import ControlMessage, FeedOptions
from bookbus.schemas.heartbeat import FeedState
from bookbus.schemas.instruments import Instrument, SymbolError
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)

CLOSED_BY_US = "connection closed by us"
"""Why books are lost when a feed is stopped, which is not logged."""

_EARLIEST_US = 1_230_768_000_000_000
_LATEST_US = 4_102_444_800_000_000
"""The years 2009, before which no market of these exchanges was open, to 2100."""

_DAY_US = 86_400_000_000

_MOST_IGNORED = 50
"""Names of ignored data that are counted apart: they come from outside."""

OnSnapshot = Callable[[OrderBookSnapshot, Topic], None]
OnTrade = Callable[[Trade], None]


class SnapshotSource(Protocol):
    """Where snapshots are requested."""

    def ask(self, need: SnapshotNeeded, feed: "Feed") -> None:
        """Queue a request, whose answer goes to `feed.apply_snapshot`."""

    def is_pending(self, native: str) -> bool:
        """Whether an answer for this symbol may still come."""

    def answers_soon(self, native: str) -> bool:
        """Whether an answer for this symbol is expected and no request for it has failed."""


@dataclass(slots=True)
class FeedCounters:
    """Counts since the start."""

    frames: int = 0
    skipped: int = 0
    updates: int = 0
    unchanged: int = 0
    lost: int = 0
    snapshots_asked: int = 0
    windows_left: int = 0
    bad_times: int = 0
    """Books and trades whose exchange time is implausible, and not used."""
    last_skipped: str = ""
    ignored: dict[str, int] = field(default_factory=dict)
    """What the exchange sent and is not used, by name."""

    def add(self, other: "FeedCounters") -> None:
        """Sum the numbers; keep the newest text there is."""
        for counter in fields(self):
            own, theirs = getattr(self, counter.name), getattr(other, counter.name)
            if isinstance(own, dict):
                setattr(self, counter.name, dict(Counter(own) + Counter(theirs)))
            else:
                setattr(self, counter.name, theirs or own if isinstance(own, str) else own + theirs)

    def ignore(self, name: str, count: int) -> None:
        """Count something that is not used."""
        name = "".join(letter for letter in name[:60] if letter.isprintable())
        if name not in self.ignored and len(self.ignored) >= _MOST_IGNORED:
            name = "others"
        self.ignored[name] = self.ignored.get(name, 0) + count


@dataclass(slots=True)
class Feed:
    """The symbols of one connection, or of several that deliver the same updates.

    `on_snapshot` gets each change: a new book, or its last levels marked `suspect`.
    """

    exchange: str
    books: BookSet
    options: FeedOptions
    instrument_of: Callable[[str], Instrument]
    on_snapshot: OnSnapshot
    on_trade: OnTrade
    snapshots: SnapshotSource
    counters: FeedCounters = field(default_factory=FeedCounters)
    latest: dict[tuple[Topic, str], OrderBookSnapshot] = field(default_factory=dict)
    """By topic and native symbol: the newest book, or its last levels with the state they have now."""
    last_trades: dict[str, TradeHappened] = field(default_factory=dict)
    """The last trade of each native symbol."""
    shallow: set[str] = field(default_factory=set)
    """Symbols that were not live at a time because their snapshot had too few levels."""
    losses: int = 0
    """How often no connection was left: a snapshot asked for before is older than the books after."""
    dropped: set[str] = field(default_factory=set)
    """Symbols that are no longer wanted."""
    unnamed: dict[str, str] = field(default_factory=dict)
    """Symbols that are left out because their standard name is not known, and the reason."""
    _held: dict[str, BookUpdated | None] = field(default_factory=dict)
    """Symbols whose published levels reach beyond the known window, with the book not published for that."""
    _losing_line: bool = False

    def receive(self, frame: bytes, line: int, received_us: int) -> Sequence[Event]:
        """Take one WebSocket message. Returns the events that concern the connection, not the books."""
        self.counters.frames += 1
        try:
            events = self.books.receive(frame, line, received_us)
        except WebSocketProtocolError as error:
            return self._skip(error)
        return self._handle(events, received_us)

    def snapshot_requested(self, native: str) -> None:
        self.books.snapshot_requested(native)

    def apply_snapshot(self, native: str, limit: int, body: bytes, received_us: int) -> None:
        """Take the answer to a snapshot request. Raises WebSocketProtocolError if it is invalid."""
        events = self.books.apply_snapshot(native, limit, body)
        held = self._held.pop(native, None)
        self._handle(events, received_us)
        if held is not None and not any(isinstance(event, BookUpdated | BookLost) for event in events):
            # Its levels are right, or the answer is too old to confirm them: do not wait for another one.
            self._update(held, received_us)

    def receive_recorded(self, url: str, body: bytes, received_us: int) -> None:
        try:
            events = self.books.receive_recorded(url, body)
        except WebSocketProtocolError as error:
            self._skip(error)
            return
        self._handle(events, received_us)

    def subscribe(self, again: Sequence[str] = ()) -> Sequence[ControlMessage]:
        """The control messages for all symbols, or for those of them that are asked for `again`."""
        return self.books.subscribe(again, self.dropped)

    def invalidate(self, native: str, reason: str, received_us: int, topic: Topic = "book") -> None:
        """A comparison showed that the book or quote is not the exchange's: lose it, and request a snapshot if needed.

        A book whose snapshot comes by the stream needs another subscription too.
        """
        self._handle(self.books.invalidate(native, reason, topic), received_us)

    def doubt(self, topic: Topic, native: str, received_us: int) -> None:
        """Publish a live book as `suspect` but keep it: the next update, or `trust`, publishes it as live again."""
        known = self.latest[topic, native]
        if known.state == "live":
            self._publish_suspect(known, topic, received_us)

    def trust(self, topic: Topic, native: str, received_us: int) -> None:
        """Publish a book as live again that was doubted, unless it was lost meanwhile."""
        known, update_id = self.latest[topic, native], self.books.update_id(native, topic)
        if known.state != "suspect" or update_id is None or not self.is_current(topic, native):
            return
        live = replace(known, state="live", update_id=update_id, received_us=received_us)
        self.latest[topic, native] = live
        self.on_snapshot(live, topic)

    def line_up(self, line: int) -> None:
        """This connection now delivers every update."""
        self.books.line_up(line)

    def line_down(self, line: int, reason: str, received_us: int) -> None:
        events = self.books.line_down(line, reason)
        if not self.books.lines:
            self.losses += 1
        lost = self.counters.lost
        self._losing_line = True
        self._handle(events, received_us)
        self._losing_line = False
        if self.counters.lost > lost and reason != CLOSED_BY_US:
            logger.info("%s: %d books lost: %s", self.exchange, self.counters.lost - lost, reason)

    def current(self, topic: Topic, native: str) -> OrderBookSnapshot:
        """The newest book, at the id the exchange's book has reached since with the same levels."""
        book = self.latest[topic, native]
        update_id = self.books.update_id(native, topic)
        if update_id is None or update_id == book.update_id or book.state != "live":
            return book
        return replace(book, update_id=update_id)

    def is_current(self, topic: Topic, native: str) -> bool:
        held = self._held.get(native) if topic == "book" else None
        known = self.books.update_id(native, topic) is not None
        return known and held is None and not self.books.is_behind(native, topic)

    def states(self, topic: Topic = "book") -> Mapping[str, FeedState]:
        """State of every book, or quote, by native symbol: `syncing` until it was complete once, else as stored."""
        natives = [*self.books.natives, *(native for kind, native in self.latest if kind == topic)]
        return {
            native: book.state if (book := self.latest.get((topic, native))) is not None else "syncing"
            for native in dict.fromkeys(natives)
            if native not in self.unnamed and native not in self.dropped
        }

    def symbol_of(self, native: str) -> str | None:
        """The standard symbol; None if it is not known, and then the symbol is left out."""
        try:
            return self.instrument_of(native).symbol
        except SymbolError as error:
            self._leave_out(native, error)
            return None

    def drop(self, native: str) -> list[tuple[Topic, OrderBookSnapshot]]:
        """Ignore a symbol from now on, whatever the exchange still sends. Returns its last books."""
        self.dropped.add(native)
        mine = [key for key in self.latest if key[1] == native]
        return [(topic, self.latest.pop((topic, native))) for topic, _ in mine]

    def refuse(self, native: str, message: str) -> None:
        """The exchange does not have this symbol (any more): leave it out, and close its books."""
        if native in self.dropped:
            return
        logger.error("%s does not have %s, which is left out: %s", self.exchange, native, message)
        for topic, book in self.drop(native):
            self.on_snapshot(replace(book, state="closed"), topic)

    def without_book(self) -> list[str]:
        """Native symbols that are not synchronised and wait for no snapshot: they need another subscription."""
        return [
            native
            for native in self.books.natives
            if native not in self.dropped
            and self.books.update_id(native) is None
            and not self.snapshots.is_pending(native)
        ]

    def forget(self) -> None:
        """Drop every book without an event: the books may be old and must not be published."""
        self.latest.clear()
        # The connections end a little later; an answer that came meanwhile must not be taken.
        self.losses += 1

    def _handle(self, events: Sequence[Event], received_us: int) -> Sequence[Event]:
        rest: list[Event] = []
        for event in events:
            match event:
                case BookUpdated():
                    self._update(event, received_us)
                case BookUnchanged():
                    self.counters.unchanged += 1
                case TradeHappened():
                    self.last_trades[event.native] = event
                    self._trade(event, received_us)
                case BookLost():
                    self._lose(event, received_us)
                case SnapshotNeeded():
                    self._ask(event)
                case KnownWindowLeft():
                    self._leave_window(event)
                case Ignored():
                    if event.native not in self.dropped:
                        self.counters.ignore(event.name, event.count)
                case PrecisionLost():
                    logger.warning("%s: %s has more digits than float64 keeps", event.native, event.text)
                case Acknowledged() | Refused() | ClosingSoon() | ResubscribeNeeded():
                    rest.append(event)
        return rest

    def _update(self, event: BookUpdated, received_us: int) -> None:
        if event.native in self.dropped or self._holds(event):
            return
        try:
            instrument = self.instrument_of(event.native)
        except SymbolError as error:
            self._leave_out(event.native, error)
            return
        self.counters.updates += 1
        exchange_us = event.exchange_us
        if exchange_us is not None and not _EARLIEST_US <= exchange_us <= received_us:
            exchange_us = self._checked_time(exchange_us, received_us)
        snapshot = OrderBookSnapshot(
            exchange=self.exchange,
            symbol=instrument.symbol,
            native=event.native,
            state="live",
            update_id=event.update_id,
            exchange_us=exchange_us,
            received_us=received_us,
            depth=self.options.depth if event.topic == "book" else 1,
            bids=event.bids,
            asks=event.asks,
        )
        self.latest[event.topic, event.native] = snapshot
        self.on_snapshot(snapshot, event.topic)

    def _ask(self, need: SnapshotNeeded) -> None:
        if need.native not in self.dropped:
            self.counters.snapshots_asked += 1
            self.snapshots.ask(need, self)

    def _leave_window(self, event: KnownWindowLeft) -> None:
        self.counters.windows_left += 1
        if event.shallow:
            self.shallow.add(event.native)
        else:
            self._held[event.native] = None
        logger.info("%s: published levels reach beyond the known window, asking for more", event.native)

    def _holds(self, event: BookUpdated) -> bool:
        """Whether this book is not published yet: it may lack levels, and a snapshot with them is on its way.

        Without one, as in a recording, a book that may lack levels far from the touch is better than none.
        """
        if not self._held or event.topic != "book" or event.native not in self._held:
            return False
        if not self.snapshots.answers_soon(event.native):
            del self._held[event.native]
            return False
        self._held[event.native] = event
        return True

    def _lose(self, event: BookLost, received_us: int) -> None:
        self.counters.lost += 1
        self._held.pop(event.native, None)
        logger.log(
            logging.DEBUG if self._losing_line else logging.INFO,
            "%s: %s lost: %s",
            *(event.native, event.topic, event.reason),
        )
        known = self.latest.get((event.topic, event.native))
        if known is None:
            return
        self._publish_suspect(known, event.topic, received_us)

    def _publish_suspect(self, known: OrderBookSnapshot, topic: Topic, received_us: int) -> None:
        suspect = replace(known, state="suspect", received_us=received_us)
        self.latest[topic, known.native] = suspect
        self.on_snapshot(suspect, topic)

    def _trade(self, event: TradeHappened, received_us: int) -> None:
        try:
            instrument = self.instrument_of(event.native)
        except SymbolError as error:
            self._leave_out(event.native, error)
            return
        exchange_us: int | None = event.exchange_us
        if not _EARLIEST_US <= event.exchange_us <= received_us:
            exchange_us = self._checked_time(event.exchange_us, received_us)
        trade = Trade(
            self.exchange,
            instrument.symbol,
            event.native,
            event.trade_id,
            event.price,
            event.quantity,
            event.aggressor,
            received_us if exchange_us is None else exchange_us,
            received_us,
        )
        self.on_trade(trade)

    def _leave_out(self, native: str, error: SymbolError) -> None:
        """A book is not published under a name that may be another book's."""
        if native not in self.unnamed:
            self.unnamed[native] = str(error)
            logger.error("%s: left out: %s", self.exchange, error)

    def _checked_time(self, exchange_us: int, received_us: int) -> int | None:
        """The exchange's time; None, and counted, if it is implausible: of no year of a market, or a day after
        the receipt. It may be long before, since a quiet book tells when it last changed.
        """
        latest = received_us + _DAY_US if received_us >= _EARLIEST_US else _LATEST_US
        if _EARLIEST_US <= exchange_us <= latest:
            return exchange_us
        if not self.counters.bad_times:
            logger.warning("%s: implausible exchange time %d us, not used", self.exchange, exchange_us)
        self.counters.bad_times += 1
        return None

    def _skip(self, error: WebSocketProtocolError) -> Sequence[Event]:
        self.counters.skipped += 1
        self.counters.last_skipped = str(error)
        return ()
