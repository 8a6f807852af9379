"""What an update costs from bytes to the published levels, beside the plain ways of doing it.

`python -m tests.bench.bench_books` prints microseconds: the best and the median of many short runs, which take turns
so that other work on the machine meets them alike. Every way must arrive at the same levels.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import BookUpdated
from bookbus.feeders.books.order_book import DepthChange, OrderBook
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.venue import FeedOptions
from tests.support.depth import depth_answer, diff_frame, partial_frame

DEPTH = 20
CHANGES = 20
UPDATES = 4_000
RUN = 50
MID = 50_000.0

Update = tuple[Sequence[DepthChange], Sequence[DepthChange]]
Top = tuple[Sequence[DepthChange], Sequence[DepthChange]]


def levels(count: int) -> Update:
    """A book with a level at every hundredth."""
    distances = [0.01 * index for index in range(1, count + 1)]
    bids, asks = ([(round(MID + sign * distance, 2), 1.0) for distance in distances] for sign in (-1, 1))
    return bids, asks


def updates() -> list[Update]:
    """Most changes near the touch, a third of them removals: what liquid symbols send."""
    chance = random.Random(1)

    def changes(sign: int) -> list[DepthChange]:
        distances = [0.01 * (1 + int(chance.expovariate(1 / 60))) for _ in range(CHANGES // 2)]
        return [
            (round(MID + sign * far, 2), chance.choice([0.0, chance.random(), chance.random()])) for far in distances
        ]

    return [(changes(-1), changes(1)) for _ in range(UPDATES)]


class SortedBook:
    """The same on SortedDict, asks first by price, bids by its negative."""

    def __init__(self, bids: Sequence[DepthChange], asks: Sequence[DepthChange]) -> None:
        self._sides = [
            SortedDict({sign * price: (price, quantity) for price, quantity in side})
            for sign, side in ((-1, bids), (1, asks))
        ]

    def apply(self, update: Update) -> Top:
        for sign, side, changes in zip((-1, 1), self._sides, update, strict=True):
            for change in changes:
                if change[1]:
                    side[sign * change[0]] = change
                else:
                    side.pop(sign * change[0], None)
        bids, asks = (tuple(islice(side.values(), DEPTH)) for side in self._sides)
        return bids, asks


class NaiveBook:
    """json, a dict a side, and a sort for the best levels."""

    def __init__(self, bids: Sequence[DepthChange], asks: Sequence[DepthChange]) -> None:
        self._bids, self._asks = dict(bids), dict(asks)

    def receive_diff(self, frame: bytes) -> Top:
        data = json.loads(frame)["data"]
        for side, changes in ((self._bids, data["b"]), (self._asks, data["a"])):
            for price_text, quantity_text in changes:
                price, quantity = float(price_text), float(quantity_text)
                if quantity:
                    side[price] = quantity
                else:
                    side.pop(price, None)
        return sorted(self._bids.items(), reverse=True)[:DEPTH], sorted(self._asks.items())[:DEPTH]

    def receive_partial(self, frame: bytes) -> Top:
        data = json.loads(frame)["data"]
        bids, asks = ([(float(price), float(quantity)) for price, quantity in data[side]] for side in ("bids", "asks"))
        return bids, asks


def our_book(count: int) -> Callable[[Update], Top]:
    book = OrderBook(DEPTH)
    book.replace(*levels(count), limit=count)

    def apply(update: Update) -> Top:
        book.apply(*update)
        return book.bids.top, book.asks.top

    return apply


class OurProtocol:
    """By diffs on a snapshot of `count` levels, or by partial frames."""

    def __init__(self, count: int | None) -> None:
        options = FeedOptions("diff" if count else "partial", DEPTH)
        self._books = BookSet(VENUE.protocol(["BTCUSDT"], options), VENUE.snapshots)
        self._top: Top = ((), ())
        if count is not None:
            (request,) = self._books.subscribe()
            self._books.receive(b'{"result":null,"id":%d}' % (request.request_id or 0))
            self._books.apply_snapshot("BTCUSDT", count, depth_answer(0, *levels(count)))

    def receive(self, frame: bytes) -> Top:
        for event in self._books.receive(frame):
            if isinstance(event, BookUpdated):
                self._top = event.bids, event.asks
        return self._top


def compare(title: str, items: Sequence[Any], **ways: Callable[[Any], Top]) -> None:
    """Print what each way takes for one item."""
    print(title)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(items) - RUN, RUN):
        results = []
        for name, way in ways.items():
            begin = time.perf_counter()
            for item in items[start : start + RUN]:
                top = way(item)
            taken[name].append((time.perf_counter() - begin) / RUN * 1e6)
            results.append([[tuple(level) for level in side] for side in top])
        assert all(result == results[0] for result in results), "the ways differ"
    for name, figures in taken.items():
        figures.sort()
        print(f"  {name.replace('_', ' '):12} best {figures[0]:7.1f}   median {figures[len(figures) // 2]:7.1f} µs")


def partial_frames() -> Iterator[bytes]:
    """Twenty levels a side, all of them new each time."""
    chance = random.Random(2)
    for update_id in range(1, UPDATES + 1):
        bids, asks = ([(price, chance.random() + 0.01) for price, _ in side] for side in levels(DEPTH))
        yield partial_frame(update_id, bids, asks)


def main() -> None:
    """Print every figure; takes some ten seconds."""
    changes = updates()
    for count in (1_000, 5_000):
        compare(
            f"{CHANGES} changes and the best {DEPTH} of {count} levels a side",
            changes,
            ours=our_book(count),
            SortedDict=SortedBook(*levels(count)).apply,
        )
    diffs = [diff_frame(update_id, None, *update) for update_id, update in enumerate(changes, 1)]
    compare(
        f"diff frame with {CHANGES} changes, 1000 levels a side: bytes to published levels",
        diffs,
        ours=OurProtocol(1_000).receive,
        json=NaiveBook(*levels(1_000)).receive_diff,
    )
    wholes = list(partial_frames())
    compare(
        f"partial frame with {DEPTH} levels a side: bytes to published levels",
        wholes,
        ours=OurProtocol(None).receive,
        json=NaiveBook((), ()).receive_partial,
    )


if __name__ == "__main__":
    main()
