"""Recorded Upbit traffic through the protocol alone: every book equals what an independent program computed."""

import gzip
from collections import Counter
from collections.abc import Iterator

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import BookUpdated, PrecisionLost, TradeHappened
from bookbus.feeders.exchanges.upbit_protocol import UpbitProtocol
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.capture import CaptureFrame, decode_frame
from tests.support.captures import capture_path, golden_books

NAME = "upbit_20210405_10sym"


def frames() -> Iterator[CaptureFrame]:
    with gzip.open(capture_path(NAME)) as lines:
        yield from map(decode_frame, lines)


def test_every_book_and_checkpoint_of_the_capture_equals_the_independent_computation() -> None:
    golden = golden_books(NAME)
    checkpoints = {(book.symbol, point.line): point for book in golden.values() for point in book.checkpoints}
    protocol = BookSet(UpbitProtocol(None, FeedOptions("partial", depth=20), recorded=True))
    newest: dict[str, BookUpdated] = {}
    passed = 0

    for line, frame in enumerate(frames()):
        for event in protocol.receive(frame.raw.encode()):
            if isinstance(event, BookUpdated):
                newest[event.native] = event
                assert event.exchange_us == event.update_id * 1000
            else:
                assert isinstance(event, PrecisionLost)
        for native in golden:
            if (point := checkpoints.get((native, line))) is not None:
                book = newest[native]
                assert (book.bids[:5], book.asks[:5]) == (point.bids, point.asks), f"{native}, line {line}"
                assert protocol.update_id(native) == point.last_update_id
                passed += 1

    assert passed == len(checkpoints) > 0
    assert set(protocol.natives) == set(golden)
    assert len(golden) == 9
    for native, final in golden.items():
        assert (newest[native].bids, newest[native].asks) == (final.bids, final.asks), native
        assert newest[native].update_id == protocol.update_id(native) == final.last_update_id


def test_every_trade_of_the_capture_is_taken_with_its_own_id_and_side() -> None:
    protocol = BookSet(UpbitProtocol(None, FeedOptions(topics=frozenset({"trades"})), recorded=True))

    trades = [
        event
        for frame in frames()
        for event in protocol.receive(frame.raw.encode())
        if isinstance(event, TradeHappened)
    ]

    assert len(trades) == sum('"ty":"trade"' in frame.raw for frame in frames()) == 672
    assert len({(trade.native, trade.trade_id) for trade in trades}) == len(trades)
    sold = sum('"ab":"ASK"' in frame.raw for frame in frames())
    assert Counter(trade.aggressor for trade in trades) == {"sell": sold, "buy": len(trades) - sold}
    assert trades[0] == TradeHappened("KRW-IQ", 1617646620000000, 41.2, 12111.68782622, "sell", 1617646620000000)
