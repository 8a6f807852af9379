"""The synchronisation core against a model exchange, under any schedule of faults that hypothesis can think of."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookbus.feeders.books import order_book
from bookbus.feeders.books.events import BookLost, BookUnchanged, BookUpdated, Event, KnownWindowLeft, SnapshotNeeded
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import RangeSync, ReplaceSync
from tests.support.depth import Depth, depth_snapshot, depth_update

NATIVE = "BTCUSDT"
DEPTH = 3
EVERYTHING = 1_000
"""A snapshot limit above any book of the model."""

Levels = tuple[DepthChange, ...]


class Entropy:
    """Decisions, one byte each; none are left when `exhausted`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def exhausted(self) -> bool:
        return self._position >= len(self._data)

    def below(self, count: int) -> int:
        if self.exhausted:
            return 0
        self._position += 1
        return self._data[self._position - 1] % count


class ModelExchange:
    """A book that changes one id at a time, is never crossed, and is flushed as updates without holes."""

    def __init__(self) -> None:
        self._bids = {50.0 - index: 1.0 for index in range(8)}
        self._asks = {51.0 + index: 1.0 for index in range(8)}
        self.id = 100
        self.flushed_id = 100
        self._changed: tuple[set[float], set[float]] = (set(), set())
        self.truth: dict[int, tuple[Levels, Levels]] = {}
        self._remember()

    def mutate(self, entropy: Entropy) -> None:
        """Set or remove one level, on either side of a touch that wanders."""
        self.id += 1
        bids = entropy.below(2) == 0
        side, other = (self._bids, self._asks) if bids else (self._asks, self._bids)
        price = float(40 + entropy.below(22))
        quantity = float(entropy.below(4))
        crossing = any(theirs <= price if bids else theirs >= price for theirs in other)
        if crossing or quantity == 0:
            # The best level goes, so that the touch moves and published levels run out.
            price = price if price in side else (max if bids else min)(side, default=price)
            side.pop(price, None)
        else:
            side[price] = quantity
        self._changed[0 if bids else 1].add(price)
        self._remember()

    def flush(self) -> Depth | None:
        """Everything that changed since the last flush, each level once; None if nothing did."""
        if self.id == self.flushed_id:
            return None
        bids, asks = (
            [(price, side.get(price, 0.0)) for price in sorted(changed)]
            for changed, side in zip(self._changed, (self._bids, self._asks), strict=True)
        )
        update = depth_update(self.flushed_id + 1, self.id, bids, asks, exchange_us=self.id * 1_000)
        self.flushed_id = self.id
        self._changed = (set(), set())
        return update

    def snapshot(self, update_id: int, limit: int) -> Depth:
        """The book as it was at an id."""
        bids, asks = self.truth[update_id]
        return depth_snapshot(update_id, bids[:limit], asks[:limit])

    def _remember(self) -> None:
        bids = tuple(sorted(self._bids.items(), reverse=True))
        self.truth[self.id] = (bids, tuple(sorted(self._asks.items())))


@dataclass
class Reader:
    """Takes what the core says and holds it to the truth."""

    exchange: ModelExchange
    whole: bool
    seen: Counter[str] = field(default_factory=Counter)
    published: BookUpdated | None = None
    update_id: int | None = None
    window_left: bool = False
    whole_top: bool = False
    """Whether a live book may lack no published level, wherever the snapshot ended."""
    edges: tuple[float, float] | None = None
    """Where the last snapshot ended on either side, infinitely far on a side that it had whole."""

    def take(self, events: Sequence[Event]) -> None:
        for index, event in enumerate(events):
            self.seen[type(event).__name__] += 1
            self.window_left |= any(isinstance(later, KnownWindowLeft) for later in events[index:])
            match event:
                case BookUpdated():
                    self.published = event
                    self._move_to(event.update_id)
                case BookUnchanged():
                    assert self.update_id is not None, "unchanged, but was not live"
                    self._move_to(event.update_id)
                case BookLost():
                    assert self.update_id is not None, "lost, but was not live"
                    self.update_id = None

    def _move_to(self, update_id: int) -> None:
        assert self.update_id is None or update_id >= self.update_id, "the book went back"
        self.update_id = update_id
        assert self.published is not None
        bids, asks = self.exchange.truth[update_id]
        if self.whole or self.whole_top or not self.window_left:
            assert (self.published.bids, self.published.asks) == (bids[:DEPTH], asks[:DEPTH])
        if self.edges is None:
            return
        lowest_bid, highest_ask = self.edges
        assert _known(self.published.bids, lowest_bid) == _known(bids, lowest_bid)[:DEPTH]
        assert _known(self.published.asks, -highest_ask, -1) == _known(asks, -highest_ask, -1)[:DEPTH]


def _known(levels: Levels, edge: float, sign: int = 1) -> Levels:
    """Those no further from the touch than the edge; on the ask side both are negative."""
    return tuple(level for level in levels if sign * level[0] >= edge)


class World:
    """One core, up to three lines to it, and everything that may happen between exchange and core."""

    def __init__(self, entropy: Entropy, first_limit: int, deep_limit: int, *, knows_edges: bool = True) -> None:
        self.entropy = entropy
        self.exchange = ModelExchange()
        self.lines: set[int] = set()
        self.sync = RangeSync(NATIVE, DEPTH, self.lines, first_limit, deep_limit)
        self.reader = Reader(self.exchange, whole=first_limit == EVERYTHING)
        self._knows_edges = knows_edges
        self._queues: dict[int, list[Depth]] = {}
        self._delivered: dict[int, list[Depth]] = {}
        self._asked: list[SnapshotNeeded] = []
        self._sent: list[SnapshotNeeded] = []
        self._next_line = 0

    def run(self) -> None:
        """Faults as long as there is entropy, then none: the book must come back."""
        self.line_up()
        actions = (
            *(self.flush,) * 5,
            *(self.deliver,) * 6,
            *(self.send,) * 3,
            *(self.answer,) * 4,
            *(self.drop, self.duplicate, self.reorder, self.line_up, self.line_down, self.exchange_moves_unseen),
        )
        while not self.entropy.exhausted:
            actions[self.entropy.below(len(actions))]()
        self.recover()

    def flush(self) -> None:
        for _ in range(1 + self.entropy.below(3)):
            self.exchange.mutate(self.entropy)
        if (update := self.exchange.flush()) is not None:
            for queue in self._queues.values():
                queue.append(update)

    def exchange_moves_unseen(self) -> None:
        self.exchange.mutate(self.entropy)

    def deliver(self) -> None:
        if (line := self._some_line()) is not None:
            self._deliver_from(line)

    def drop(self) -> None:
        if (line := self._some_line()) is not None and self._queues[line]:
            self._queues[line].pop(0)
            self.reader.seen["dropped"] += 1

    def duplicate(self) -> None:
        if (line := self._some_line()) is not None and (delivered := self._delivered[line]):
            self._receive(delivered[-1 - self.entropy.below(min(len(delivered), 5))], line)

    def reorder(self) -> None:
        if (line := self._some_line()) is not None and len(queue := self._queues[line]) > 1:
            queue[0], queue[1] = queue[1], queue[0]

    def send(self) -> None:
        """A request may wait long before it leaves."""
        if self._asked:
            self._sent.append(self._asked.pop(0))
            self.sync.snapshot_requested()

    def answer(self) -> None:
        """A snapshot of now, of the last flush, of any id shortly before, or of where the book is."""
        if not self._sent:
            return
        oldest = min(self.exchange.truth)
        choices = (
            self.exchange.id,
            self.exchange.flushed_id,
            max(oldest, self.exchange.id - self.entropy.below(12)),
            max(oldest, self.exchange.id - self.entropy.below(40)),
            self.sync.update_id or oldest,
        )
        self._answer_with(choices[self.entropy.below(len(choices))])

    def line_up(self) -> None:
        if len(self._queues) == 3:
            return
        line, self._next_line = self._next_line, self._next_line + 1
        self._queues[line], self._delivered[line] = [], []
        self.lines.add(line)
        self._take(self.sync.start())

    def line_down(self) -> None:
        if (line := self._some_line()) is None:
            return
        del self._queues[line]
        self.lines.discard(line)
        self._take(self.sync.line_down(line, "closed"))
        assert self.lines or self.sync.update_id is None

    def recover(self) -> None:
        """No more faults: every line delivers all it has, every question is answered with what is true now."""
        if not self.lines:
            self.line_up()
        for _ in range(3):
            self.flush()
            for line in list(self._queues):
                while self._queues[line]:
                    self._deliver_from(line)
            for _ in range(5):
                self.send()
                if self._sent:
                    self._answer_with(self.exchange.id)
        assert self.sync.update_id == self.exchange.id
        assert self.reader.update_id == self.exchange.id

    def _some_line(self) -> int | None:
        lines = list(self._queues)
        return lines[self.entropy.below(len(lines))] if lines else None

    def _deliver_from(self, line: int) -> None:
        if self._queues[line]:
            update = self._queues[line].pop(0)
            self._delivered[line].append(update)
            self._receive(update, line)

    def _receive(self, update: Depth, line: int) -> None:
        self._take(self.sync.receive_update(update, line))

    def _answer_with(self, update_id: int) -> None:
        need = self._sent.pop(0)
        snapshot = self.exchange.snapshot(update_id, need.limit)
        events = self.sync.receive_snapshot(snapshot, need.limit)
        if any(isinstance(event, BookUpdated | BookUnchanged) for event in events):
            self.reader.window_left = False
            if self._knows_edges:
                self.reader.edges = (
                    snapshot.bids[-1][0] if len(snapshot.bids) == need.limit else float("-inf"),
                    snapshot.asks[-1][0] if len(snapshot.asks) == need.limit else float("inf"),
                )
        elif events:
            self.reader.seen["snapshot refused"] += 1
        self._take(events)

    def _take(self, events: Sequence[Event]) -> None:
        self.reader.take(events)
        self._asked.extend(event for event in events if isinstance(event, SnapshotNeeded))
        assert self.sync.update_id == self.reader.update_id
        for event in events:
            assert not isinstance(event, SnapshotNeeded) or event.urgent or self.sync.update_id is not None
        if self.reader.whole and self.sync.update_id is not None:
            levels = (self.sync.book.bids.levels(), self.sync.book.asks.levels())
            assert levels == self.exchange.truth[self.sync.update_id]


@contextlib.contextmanager
def deep_windows() -> Iterator[pytest.MonkeyPatch]:
    """Snapshots of a few levels count as those of a thousand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_book, "DEEP", 1)
        yield patch


SCHEDULES = st.binary(min_size=100, max_size=400)


@settings(max_examples=1_500)
@given(SCHEDULES)
def test_whatever_is_published_is_the_exchanges_book_at_that_id(schedule: bytes) -> None:
    World(Entropy(schedule), EVERYTHING, EVERYTHING).run()


@settings(max_examples=1_500)
@given(SCHEDULES)
def test_with_shallow_snapshots_no_book_is_live_that_lacks_a_level(schedule: bytes) -> None:
    world = World(Entropy(schedule), first_limit=4, deep_limit=6, knows_edges=False)
    world.reader.whole_top = True

    world.run()


@settings(max_examples=1_500)
@given(SCHEDULES)
def test_with_limited_snapshots_everything_inside_the_known_window_is_the_exchanges(schedule: bytes) -> None:
    with deep_windows():
        World(Entropy(schedule), first_limit=4, deep_limit=6).run()


@settings(max_examples=1_000)
@given(SCHEDULES)
def test_with_pruning_everything_published_is_the_exchanges_until_it_says_otherwise(schedule: bytes) -> None:
    with deep_windows() as patch:
        patch.setattr(order_book, "MAX_LEVELS", 4)
        patch.setattr(order_book, "_PRUNE_SLACK", 1)
        World(Entropy(schedule), first_limit=4, deep_limit=6, knows_edges=False).run()


def test_the_schedules_reach_every_kind_of_trouble() -> None:
    seen: Counter[str] = Counter()
    for seed in range(300):
        world = World(Entropy(random.Random(seed).randbytes(250)), first_limit=4, deep_limit=6)
        with deep_windows():
            world.run()
        seen += world.reader.seen

    rare = {name: seen[name] for name in ("dropped", "snapshot refused", "BookLost", "KnownWindowLeft")}
    assert min(rare.values()) > 100, rare
    assert seen["BookUpdated"] > 1_000


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), st.booleans()), max_size=80))
def test_of_two_lines_with_whole_books_the_newest_is_published_and_never_an_older_one(
    steps: list[tuple[int, bool]],
) -> None:
    """Line 0 carries every book at once, line 1 the same ones later, in bursts."""
    sync = ReplaceSync(NATIVE, DEPTH, {0, 1})
    sent, late, newest = 0, 0, 0

    for line, changes in steps:
        if line == 0:
            sent += 1
            books = [sent]
            newest = sent
        else:
            books = list(range(late + 1, sent + 1)) if changes else []
            late = sent if changes else late
        for update_id in books:
            snapshot = depth_snapshot(update_id, bids=[(float(update_id // 2 + 1), 1.0)], asks=())
            for event in sync.receive_update(snapshot, line):
                assert isinstance(event, BookUpdated | BookUnchanged)
                assert event.update_id == newest
        assert sync.update_id == (newest or None)
