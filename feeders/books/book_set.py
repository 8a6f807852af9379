"""The books and quotes of some symbols: decoded messages in, events out, one synchroniser a symbol and topic."""

from collections.abc import Collection, Sequence
from itertools import count

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.events import Acknowledged, Event, PrecisionLost, Topic
from bookbus.feeders.books.history import BookHistory
from bookbus.feeders.books.order_book import DepthSnapshot
from bookbus.feeders.books.synchronizer import NOTHING, BookSync, CounterSync, RangeSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import ControlMessage, DepthMessage, Message, VenueProtocol, VenueSnapshots
from bookbus.schemas.instruments import EXACT_DIGITS, significant_digits

MAX_FRAME_BYTES = 1 << 20
"""Many times what the busiest symbol sends in one message."""

_MAX_UNANSWERED = 500
"""Requests remembered until they are acknowledged: many times what connections ask at once. Lost ones never are."""


class BookSet:
    """All books and quotes that the connections of one set of symbols deliver.

    A `line` is the number of one connection. Several connections may deliver the same updates: each has a slot below
    `lines`, and its number is the slot plus a multiple of `lines`, so that a successor in the same slot differs.
    """

    def __init__(self, protocol: VenueProtocol, snapshots: VenueSnapshots | None = None, lines: int = 1) -> None:
        self.arbiter = LineArbiter(lines) if lines > 1 else None
        """Compares the connections, where there are several at a time."""
        self.lines: set[int] = set()
        """Connections that deliver every update; the synchronisers read it."""
        self._protocol = protocol
        self._decode = protocol.decode
        self._snapshots = snapshots
        self._slots = lines
        self._connections = count()
        self._request_ids = count(1)
        self._requested: dict[int, tuple[str, ...]] = {}
        """Symbols of the requests that were not acknowledged yet."""
        self._syncs: dict[tuple[Topic, str], BookSync] = {}
        self._sources: dict[tuple[Topic, str], str] = {}
        """The stream that carries each book: of several with the same book, the first to come."""
        self._by_stream: dict[str, BookSync] = {}
        self._checked: set[str] = set()
        """Symbols whose numbers were checked."""
        self._one_sided: set[str] = set()
        """Symbols whose last snapshot had no level on one side."""
        for native in protocol.natives:
            for topic, stream in protocol.streams(native).items():
                if topic != "trades":
                    self._syncs[topic, native] = protocol.synchronizer(native, topic, stream, self.lines)

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""
        return tuple(native for topic, native in self._syncs if topic == "book")

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """The id of the book or quote; None while it is not synchronised."""
        return self._syncs[topic, native].update_id

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        """Whether the book or quote may be older than what its lines delivered."""
        return self._syncs[topic, native].is_behind

    def subscribe(self, again: Sequence[str] = (), dropped: Collection[str] = ()) -> list[ControlMessage]:
        """The control messages for all symbols but the dropped ones, or for those that are asked for `again`."""
        wanted = [native for native in self._protocol.natives if native not in dropped]
        return self._remember(self._protocol.subscribe(wanted, self._request_ids, again=again))

    def subscribe_without(self, native: str, request_id: int) -> list[ControlMessage]:
        """The control messages for the other symbols of a request that was refused because of this one."""
        others = [each for each in self._requested.pop(request_id, ()) if each != native]
        return self._remember(self._protocol.subscribe(others, self._request_ids)) if others else []

    def _remember(self, requests: list[ControlMessage]) -> list[ControlMessage]:
        for request in requests:
            if request.request_id is not None:
                self._requested[request.request_id] = request.natives
                self._requested.pop(request.request_id - _MAX_UNANSWERED, None)
        return requests

    def new_line(self, slot: int) -> int:
        return next(self._connections) * self._slots + slot

    def line_up(self, line: int) -> None:
        """From now on this connection delivers every update."""
        self.lines.add(line)

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        self.lines.discard(line)
        return [event for sync in self._syncs.values() for event in sync.line_down(line, reason)]

    def receive(self, frame: bytes, line: int = 0, received_us: int = 0) -> Sequence[Event]:
        if len(frame) > MAX_FRAME_BYTES:
            raise WebSocketProtocolError(f"{len(frame)} bytes are more than any message has")
        messages = self._decode(frame)
        if len(messages) != 1:
            return [event for message in messages for event in self._take(message, frame, line, received_us)] or NOTHING
        message = messages[0]
        if self.arbiter is None and isinstance(message, DepthMessage):
            # Nearly every message: without another call.
            sync = self._by_stream.get(message.stream)
            if sync is not None:
                return sync.receive_update(message.update, line)
        return self._take(message, frame, line, received_us)

    def snapshot_requested(self, native: str) -> None:
        """The request for a snapshot is sent now: buffer updates that may have to follow its answer."""
        if isinstance(sync := self._syncs.get(("book", native)), RangeSync):
            sync.snapshot_requested()

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """Apply the answer to a snapshot request. Raises WebSocketProtocolError if it is invalid."""
        if self._snapshots is None:
            raise WebSocketProtocolError("this exchange has no snapshots by request")
        snapshot = self._snapshots.decode(body)
        if snapshot.bids and snapshot.asks:
            self._one_sided.discard(native)
        elif native not in self._one_sided:
            # An incomplete answer is more likely than a market with an empty side.
            self._one_sided.add(native)
            raise WebSocketProtocolError("one side has no level: asking again to be sure")
        return self._bridge(native, limit, body, snapshot)

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """Apply an HTTP answer of a recording. Raises WebSocketProtocolError if it is invalid."""
        snapshots = self._snapshots
        if snapshots is None or (request := snapshots.request_of(url)) is None:
            return NOTHING
        native, limit = request
        key: tuple[Topic, str] = "book", native
        if key not in self._syncs and not self._protocol.natives and "book" in self._protocol.streams(native):
            self._syncs[key] = self._protocol.synchronizer(native, "book", None, self.lines)
        if isinstance(sync := self._syncs.get(key), RangeSync):
            # The snapshot was requested, perhaps before the first update: a quiet symbol sends none for minutes.
            sync.start()
        return self._bridge(native, limit, body, snapshots.decode(body))

    def start_history(self, native: str) -> BookHistory | None:
        """Record the history of a book that is built from changes; None while it is not synchronised."""
        sync = self._syncs.get(("book", native))
        return sync.start_history() if isinstance(sync, RangeSync | CounterSync) else None

    def invalidate(self, native: str, reason: str, topic: Topic = "book") -> Sequence[Event]:
        """A comparison showed that the book or quote is not the exchange's."""
        sync = self._syncs.get((topic, native))
        return NOTHING if sync is None else sync.invalidate(reason)

    def _take(self, message: Message, frame: bytes, line: int, received_us: int) -> Sequence[Event]:
        if not isinstance(message, DepthMessage):
            return self._acknowledged(message) if isinstance(message, Acknowledged) else [message]
        if self.arbiter is not None and message.topic == "book":
            self.arbiter.record(message.native, message.update.last_id, line % self._slots, received_us)
        sync = self._by_stream.get(message.stream)
        if sync is None:
            return self._take_first(message, frame, line)
        return sync.receive_update(message.update, line)

    def _take_first(self, message: DepthMessage, frame: bytes, line: int) -> Sequence[Event]:
        """The first message of a stream, or one of a stream whose book another stream carries already."""
        native, topic, stream = message.native, message.topic, message.stream
        if self._sources.setdefault((topic, native), stream) != stream:
            return NOTHING
        sync = self._protocol.synchronizer(native, topic, stream, self.lines)
        known = self._syncs.get((topic, native))
        if type(known) is type(sync):  # it may have been started by an acknowledgement or a snapshot
            sync = known
        self._syncs[topic, native] = self._by_stream[stream] = sync
        events = sync.receive_update(message.update, line)
        if topic != "book" or isinstance(sync, RangeSync):  # which has its numbers checked with the first snapshot
            return events
        lost = self._check_precision(native, frame)
        return [*lost, *events] if lost else events

    def _acknowledged(self, reply: Acknowledged) -> Sequence[Event]:
        natives = self._requested.pop(reply.request_id, ())
        syncs = [self._syncs.get(("book", native)) for native in natives]
        return [reply, *(event for sync in syncs if isinstance(sync, RangeSync) for event in sync.start())]

    def _bridge(self, native: str, limit: int, body: bytes, snapshot: DepthSnapshot) -> Sequence[Event]:
        sync = self._syncs.get(("book", native))
        if not isinstance(sync, RangeSync):
            return NOTHING
        return [*self._check_precision(native, body), *sync.receive_snapshot(snapshot, limit)]

    def _check_precision(self, native: str, text: bytes) -> Sequence[Event]:
        """Once a symbol: whether its numbers fit float64."""
        numbers = self._protocol.numbers
        if native in self._checked or numbers is None:
            return NOTHING
        self._checked.add(native)
        for number in numbers.findall(text):
            if significant_digits(number.decode()) > EXACT_DIGITS:
                return [PrecisionLost(native, number.decode())]
        return NOTHING
