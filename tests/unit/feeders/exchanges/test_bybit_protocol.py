"""Bybit's protocol: snapshots in band, changes by a counter, replies to control messages."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import (
    Acknowledged,
    BookLost,
    BookUnchanged,
    BookUpdated,
    Refused,
    ResubscribeNeeded,
    TradeHappened,
)
from bookbus.feeders.errors import MetadataError, WebSocketProtocolError
from bookbus.feeders.exchanges.bybit_ws_adapter import VENUE
from bookbus.feeders.venue import FeedOptions

TIME_MS = 1_700_000_000_000
BIDS, ASKS = [["100.5", "1"], ["100.0", "2"]], [["101.0", "3"], ["101.5", "4"]]


def _message(kind: str, update_id: int, bids: list[list[str]], asks: list[list[str]], native: str = "BTCUSDT") -> bytes:
    data = {"s": native, "b": bids, "a": asks, "u": update_id, "seq": 7}
    body = {"topic": f"orderbook.50.{native}", "type": kind, "ts": TIME_MS, "data": data, "cts": TIME_MS - 1}
    return json.dumps(body).encode()


def _books(natives: Sequence[str], options: FeedOptions) -> BookSet:
    """The exchange's messages, and the books that they make."""
    return BookSet(VENUE.protocol(natives, options), VENUE.snapshots)


def _live(*lines: int) -> BookSet:
    protocol = _books(["BTCUSDT"], FeedOptions())
    for line in lines or (0,):
        protocol.line_up(line)
    protocol.receive(_message("snapshot", 10, BIDS, ASKS))
    return protocol


def test_a_snapshot_is_the_book() -> None:
    protocol = _books(["BTCUSDT"], FeedOptions())

    assert protocol.receive(_message("snapshot", 10, BIDS, ASKS)) == [
        BookUpdated("BTCUSDT", 10, TIME_MS * 1000, ((100.5, 1.0), (100.0, 2.0)), ((101.0, 3.0), (101.5, 4.0)))
    ]
    assert protocol.update_id("BTCUSDT") == 10


def test_changes_are_absolute_and_zero_removes() -> None:
    protocol = _live()

    events = protocol.receive(_message("delta", 11, [["100.5", "0"], ["99.0", "9"]], [["101.0", "5"]]))

    assert events == [
        BookUpdated("BTCUSDT", 11, TIME_MS * 1000, ((100.0, 2.0), (99.0, 9.0)), ((101.0, 5.0), (101.5, 4.0)))
    ]


def test_changes_before_the_snapshot_and_old_ones_say_nothing() -> None:
    protocol = _books(["BTCUSDT"], FeedOptions())

    assert protocol.receive(_message("delta", 11, BIDS, ASKS)) == ()
    assert _live().receive(_message("delta", 10, [["100.5", "9"]], [])) == ()


def test_a_hole_loses_the_book_and_asks_for_it_anew() -> None:
    assert _live().receive(_message("delta", 12, [], [["101.0", "9"]])) == [
        BookLost("BTCUSDT", "expected update 11, received 12"),
        ResubscribeNeeded("BTCUSDT"),
    ]


def test_a_crossed_book_is_lost() -> None:
    events = _live().receive(_message("delta", 11, [["101.2", "1"]], []))

    assert events == [BookLost("BTCUSDT", "bids and asks cross"), ResubscribeNeeded("BTCUSDT")]


def test_a_snapshot_at_any_time_replaces_the_book() -> None:
    protocol = _live()

    events = protocol.receive(_message("snapshot", 15, [["90", "1"]], [["91", "1"]]))

    assert events == [BookUpdated("BTCUSDT", 15, TIME_MS * 1000, ((90.0, 1.0),), ((91.0, 1.0),))]


def test_a_restarted_service_loses_the_book_and_brings_another_at_once() -> None:
    protocol = _live()

    events = protocol.receive(_message("snapshot", 1, [["90", "1"]], [["91", "1"]]))

    assert events == [
        BookLost("BTCUSDT", "update ids fell to 1"),
        BookUpdated("BTCUSDT", 1, TIME_MS * 1000, ((90.0, 1.0),), ((91.0, 1.0),)),
    ]


def test_a_restarted_service_with_the_same_levels_still_brings_another_book() -> None:
    lost, updated = _live().receive(_message("snapshot", 1, BIDS, ASKS))

    assert isinstance(lost, BookLost)
    assert isinstance(updated, BookUpdated)


def test_the_same_book_again_is_unchanged() -> None:
    assert _live().receive(_message("snapshot", 10, BIDS, ASKS)) == [BookUnchanged("BTCUSDT", 10)]


def test_what_one_line_lacks_another_brings() -> None:
    protocol = _live(0, 1)

    assert protocol.receive(_message("delta", 12, [["100.0", "8"]], []), line=0) == ()
    assert protocol.receive(_message("delta", 11, [["100.0", "7"]], []), line=1) != ()
    assert protocol.receive(_message("delta", 12, [["100.0", "8"]], []), line=1) != ()
    assert protocol.update_id("BTCUSDT") == 12


def test_a_hole_on_every_line_loses_the_book() -> None:
    protocol = _live(0, 1)
    protocol.receive(_message("delta", 12, [], []), line=0)

    assert BookLost("BTCUSDT", "expected update 11, received 13") in protocol.receive(
        _message("delta", 13, [], []), line=1
    )


def test_the_first_snapshot_of_a_further_line_never_goes_back() -> None:
    protocol = _live(0)
    protocol.receive(_message("delta", 11, [["100.0", "8"]], []), line=0)
    protocol.line_up(1)

    assert protocol.receive(_message("snapshot", 10, BIDS, ASKS), line=1) == ()
    assert protocol.update_id("BTCUSDT") == 11


def test_a_lost_book_that_both_lines_ask_for_anew_never_goes_back() -> None:
    protocol = _live(0, 1)
    protocol.receive(_message("snapshot", 10, BIDS, ASKS), line=1)
    protocol.receive(_message("delta", 12, [], []), line=0)
    protocol.receive(_message("delta", 12, [], []), line=1)
    assert protocol.update_id("BTCUSDT") is None
    protocol.receive(_message("snapshot", 20, BIDS, ASKS), line=0)
    protocol.receive(_message("delta", 21, [["100.0", "8"]], []), line=0)

    assert protocol.receive(_message("snapshot", 20, BIDS, ASKS), line=1) == ()
    assert protocol.update_id("BTCUSDT") == 21


def test_the_last_line_takes_the_book_with_it() -> None:
    protocol = _live(0, 1)

    assert list(protocol.line_down(0, "cut")) == []
    assert list(protocol.line_down(1, "cut")) == [BookLost("BTCUSDT", "cut")]


def test_subscriptions_name_ten_topics_at_most() -> None:
    natives = [f"A{number}USDT" for number in range(23)]
    requests = [json.loads(request.text) for request in _books(natives, FeedOptions(depth=60)).subscribe()]

    assert [len(request["args"]) for request in requests] == [10, 10, 3]
    assert requests[0]["args"][0] == "orderbook.200.A0USDT"
    assert {request["op"] for request in requests} == {"subscribe"}


def test_asking_anew_leaves_the_topic_first() -> None:
    requests = [json.loads(request.text) for request in _live().subscribe(["BTCUSDT"])]

    assert [(request["op"], request["args"]) for request in requests] == [
        ("unsubscribe", ["orderbook.50.BTCUSDT"]),
        ("subscribe", ["orderbook.50.BTCUSDT"]),
    ]


def test_control_replies() -> None:
    protocol = _live()
    reply = {"success": True, "ret_msg": "", "conn_id": "x", "req_id": "3", "op": "subscribe"}

    assert protocol.receive(json.dumps(reply).encode()) == [Acknowledged(3)]
    assert protocol.receive(json.dumps(reply | {"success": False, "ret_msg": "bad topic"}).encode()) == [
        Refused(3, "bad topic")
    ]
    assert protocol.receive(b'{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}') == ()


def test_trades_carry_the_takers_side() -> None:
    protocol = _books(["BTCUSDT"], FeedOptions(topics=frozenset({"trades"})))
    trade = {"i": "2290000000012345678", "T": TIME_MS, "p": "100.5", "v": "0.25", "S": "Sell", "s": "BTCUSDT"}
    message = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": TIME_MS, "data": [trade]}

    assert protocol.receive(json.dumps(message).encode()) == [
        TradeHappened("BTCUSDT", 2290000000012345678, 100.5, 0.25, "sell", TIME_MS * 1000)
    ]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        _message("delta", 11, [["nan", "1"]], []),
        _message("delta", 11, [["-1", "1"]], []),
        _message("delta", 11, [["0", "1"]], []),
        _message("delta", 11, [["100", "-1"]], []),
        _message("other", 11, [], []),
        _message("delta", -1, [], []),
        b" " * (1 << 21),
    ],
)
def test_nonsense_is_a_protocol_error_and_changes_nothing(frame: bytes) -> None:
    protocol = _live()

    with pytest.raises(WebSocketProtocolError):
        protocol.receive(frame)

    assert protocol.receive(_message("snapshot", 10, BIDS, ASKS)) == [BookUnchanged("BTCUSDT", 10)]


Change = tuple[int, int]
_changes = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=6)


@given(st.lists(st.tuples(_changes, _changes, st.sampled_from(["send", "drop", "twice"])), max_size=30))
def test_a_book_that_is_not_lost_equals_the_truth(steps: list[tuple[list[Change], list[Change], str]]) -> None:
    protocol = _books(["BTCUSDT"], FeedOptions(depth=50))
    protocol.line_up(0)
    protocol.receive(_message("snapshot", 1, [], []))
    truth: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for update_id, (bids, asks, fate) in enumerate(steps, 2):
        # Asks stand above every bid, so that the truth never crosses.
        for side, changes in zip(truth, (bids, asks), strict=True):
            side.update(changes)
        bid_texts, ask_texts = (
            [[str(price + lift), str(size)] for price, size in side] for side, lift in ((bids, 0), (asks, 100))
        )
        for _ in range({"send": 1, "drop": 0, "twice": 2}[fate]):
            _check(protocol.receive(_message("delta", update_id, bid_texts, ask_texts)), truth)


def _check(events: Any, truth: tuple[dict[int, int], dict[int, int]]) -> None:
    for event in events:
        if isinstance(event, BookUpdated):
            bids, asks = ({price: size for price, size in side.items() if size} for side in truth)
            assert event.bids == tuple((float(p), float(bids[p])) for p in sorted(bids, reverse=True))
            assert event.asks == tuple((float(p + 100), float(asks[p])) for p in sorted(asks))


def test_metadata_names_are_the_exchanges_own() -> None:
    market = {
        "symbol": "BTCUSDT",
        "baseCoin": "BTC",
        "quoteCoin": "USDT",
        "status": "Trading",
        "innovation": "0",
        "lotSizeFilter": {"basePrecision": "0.000001", "minOrderAmt": "5"},
        "priceFilter": {"tickSize": "0.01"},
    }

    [instrument] = VENUE.instruments(json.dumps({"retCode": 0, "result": {"list": [market]}}).encode())

    assert (instrument.symbol, instrument.tick, instrument.step, instrument.minimum_notional, instrument.status) == (
        *("BTC-USDT", 0.01, 0.000001, 5.0),
        "trading",
    )
    with pytest.raises(MetadataError):
        VENUE.instruments(b"[]")


def test_a_refusal_says_which_symbol_the_exchange_does_not_have_and_the_others_are_asked_for_again() -> None:
    books = _books(["BTCUSDT", "GONEUSDT", "ETHUSDT"], FeedOptions(topics=frozenset({"book", "trades"})))
    (request,) = books.subscribe()
    reply = {"success": False, "conn_id": "x", "req_id": str(request.request_id), "op": "subscribe"}
    message = "error:handler not found,topic:orderbook.50.GONEUSDT"

    (refused,) = books.receive(json.dumps(reply | {"ret_msg": message}).encode())
    (again,) = books.subscribe_without("GONEUSDT", request.request_id or 0)

    assert refused == Refused(request.request_id, message, "GONEUSDT")
    assert json.loads(again.text) == {
        "req_id": "2",
        "op": "subscribe",
        "args": ["orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "orderbook.50.ETHUSDT", "publicTrade.ETHUSDT"],
    }
    assert books.subscribe_without("GONEUSDT", request.request_id or 0) == []
