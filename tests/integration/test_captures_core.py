"""Recorded exchange traffic through the protocol alone: every book equals what an independent program computed."""

import gzip
from collections.abc import Iterator, Sequence

import pytest

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import BookLost, BookUpdated, Event, KnownWindowLeft, SnapshotNeeded
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.capture import CaptureFrame, decode_frame
from tests.support.captures import capture_path, golden_books

NAMES = ("binance_20240808_btc_eth_long", "binance_20210405_10sym")


def frames(name: str) -> Iterator[CaptureFrame]:
    with gzip.open(capture_path(name)) as lines:
        yield from map(decode_frame, lines)


def books() -> BookSet:
    return BookSet(VENUE.protocol(None, FeedOptions(depth=20), recorded=True), VENUE.snapshots)


def receive(protocol: BookSet, frame: CaptureFrame) -> Sequence[Event]:
    body = frame.raw.encode()
    return protocol.receive(body) if frame.kind == "ws" else protocol.receive_recorded(frame.url, body)


@pytest.mark.parametrize("name", NAMES)
def test_every_book_and_checkpoint_of_a_capture_equals_the_independent_computation(name: str) -> None:
    golden = golden_books(name)
    checkpoints = {(book.symbol, point.line): point for book in golden.values() for point in book.checkpoints}
    protocol = books()
    newest: dict[str, BookUpdated] = {}
    passed = 0

    for line, frame in enumerate(frames(name)):
        for event in receive(protocol, frame):
            assert not isinstance(event, BookLost)
            if isinstance(event, BookUpdated):
                newest[event.native] = event
        for native in golden:
            if (point := checkpoints.get((native, line))) is not None:
                book = newest[native]
                assert (book.bids[:5], book.asks[:5]) == (point.bids, point.asks), f"{native}, line {line}"
                assert protocol.update_id(native) == point.last_update_id
                passed += 1

    assert passed == len(checkpoints) > 0
    assert set(protocol.natives) == set(golden)
    for native, final in golden.items():
        assert (newest[native].bids, newest[native].asks) == (final.bids, final.asks), native
        assert protocol.update_id(native) == final.last_update_id


def test_the_long_capture_leaves_the_known_window_once_and_stays_live() -> None:
    protocol = books()
    events = [
        event
        for frame in frames(NAMES[0])
        for event in receive(protocol, frame)
        if isinstance(event, KnownWindowLeft | SnapshotNeeded)
    ]

    assert [event for event in events if isinstance(event, KnownWindowLeft)] == [KnownWindowLeft("BTCUSDT")]
    assert events.count(SnapshotNeeded("BTCUSDT", 100, urgent=True)) == 2  # the first one, and near the edge


def test_a_capture_without_its_snapshots_ends_with_no_book() -> None:
    protocol = books()

    events = [event for frame in frames(NAMES[1]) if frame.kind == "ws" for event in receive(protocol, frame)]

    assert sorted(event.native for event in events if isinstance(event, SnapshotNeeded)) == sorted(protocol.natives)
    assert not any(isinstance(event, BookUpdated) for event in events)
    assert {protocol.update_id(native) for native in protocol.natives} == {None}
