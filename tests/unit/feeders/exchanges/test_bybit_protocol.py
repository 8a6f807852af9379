"""Bybit's protocol: snapshots in band, changes by a counter, replies to control messages."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import (
    Acknowledged,
    BookLost,
    BookUnchanged,
    BookUpdated,
    Ignored,
    Refused,
    ResubscribeNeeded,
    TradeHappened,
)
from bookbus.feeders.errors import MetadataError, WebSocketProtocolError
from bookbus.feeders.exchanges.bybit_protocol import decode_full_book
from bookbus.feeders.exchanges.bybit_ws_adapter import VENUE
from bookbus.feeders.exchanges.drift import trade_number
from bookbus.feeders.venue import FeedOptions

TIME_MS = 1_700_000_000_000
MATCHED_US = (TIME_MS - 1) * 1000
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
        BookUpdated("BTCUSDT", 10, MATCHED_US, ((100.5, 1.0), (100.0, 2.0)), ((101.0, 3.0), (101.5, 4.0)))
    ]
    assert protocol.update_id("BTCUSDT") == 10


def test_changes_are_absolute_and_zero_removes() -> None:
    protocol = _live()

    events = protocol.receive(_message("delta", 11, [["100.5", "0"], ["99.0", "9"]], [["101.0", "5"]]))

    assert events == [BookUpdated("BTCUSDT", 11, MATCHED_US, ((100.0, 2.0), (99.0, 9.0)), ((101.0, 5.0), (101.5, 4.0)))]


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

    assert events == [BookUpdated("BTCUSDT", 15, MATCHED_US, ((90.0, 1.0),), ((91.0, 1.0),))]


def test_a_restarted_service_loses_the_book_and_brings_another_at_once() -> None:
    protocol = _live()

    events = protocol.receive(_message("snapshot", 1, [["90", "1"]], [["91", "1"]]))

    assert events == [
        BookLost("BTCUSDT", "update ids fell to 1"),
        BookUpdated("BTCUSDT", 1, MATCHED_US, ((90.0, 1.0),), ((91.0, 1.0),)),
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


def _trade_entry(trade_id: str | int = "1", **changes: Any) -> dict[str, Any]:
    entry = {"i": trade_id, "T": TIME_MS, "p": "100.5", "v": "0.25", "S": "Sell", "s": "BTCUSDT", "BT": False}
    return entry | changes


def _trade_message(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"topic": "publicTrade.BTCUSDT", "ts": TIME_MS, "type": "snapshot", "data": entries}).encode()


def _trades_of(*entries: dict[str, Any]) -> list[Any]:
    return list(_books(["BTCUSDT"], FeedOptions(topics=frozenset({"trades"}))).receive(_trade_message(*entries)))


@pytest.mark.parametrize(
    ("flags", "name"),
    [({"BT": True}, "block trade"), ({"RPI": True}, "RPI trade"), ({"BT": True, "RPI": True}, "block trade")],
)
def test_a_trade_that_did_not_take_from_the_book_is_left_out_and_counted(flags: dict[str, bool], name: str) -> None:
    events = _trades_of(_trade_entry("1"), _trade_entry("2", **flags), _trade_entry("3", RPI=False))

    assert [event.trade_id for event in events if isinstance(event, TradeHappened)] == [1, 3]
    assert [event for event in events if isinstance(event, Ignored)] == [Ignored("BTCUSDT", name)]


def test_trades_of_one_moment_in_several_messages_all_come_once() -> None:
    protocol = _books(["BTCUSDT"], FeedOptions(topics=frozenset({"trades"})))
    ids = [str(UUID(int=(number + 1) * 2**64 + number)) for number in range(1500)]
    parts = (ids[:1024], ids[1024:])

    events = [event for part in parts for event in protocol.receive(_trade_message(*map(_trade_entry, part)))]

    numbers = [event.trade_id for event in events if isinstance(event, TradeHappened)]
    assert len(numbers) == len(set(numbers)) == 1500
    assert all(0 <= number < 2**63 for number in numbers)
    assert numbers[0] == trade_number(ids[0])


@pytest.mark.parametrize(
    ("changes", "same"),
    [({"S": "SELL"}, True), ({"T": str(TIME_MS)}, True), ({"T": TIME_MS * 1000}, True), ({"p": 100.5}, True)],
    ids=str,
)
def test_a_trade_in_another_spelling_is_the_same_trade(changes: dict[str, Any], same: bool) -> None:
    (trade,) = (event for event in _trades_of(_trade_entry(**changes)) if isinstance(event, TradeHappened))

    assert (trade == TradeHappened("BTCUSDT", 1, 100.5, 0.25, "sell", TIME_MS * 1000)) is same


def test_one_unreadable_trade_takes_no_other_with_it() -> None:
    events = _trades_of(_trade_entry("1"), _trade_entry("2", p="-1"), _trade_entry("3"))

    assert [event.trade_id for event in events if isinstance(event, TradeHappened)] == [1, 3]
    assert Ignored("BTCUSDT", "unreadable trade") in events


def test_trades_of_which_none_can_be_read_are_refused() -> None:
    with pytest.raises(WebSocketProtocolError):
        _trades_of(_trade_entry(S="Maybe"))


@pytest.mark.parametrize(("cts", "expected"), [(TIME_MS - 7, TIME_MS - 7), (None, TIME_MS)], ids=["both", "ts alone"])
def test_a_book_is_of_the_time_of_the_matching_engine(cts: int | None, expected: int) -> None:
    message = json.loads(_message("snapshot", 10, BIDS, ASKS))
    del message["cts"]
    if cts is not None:
        message["cts"] = cts

    (updated,) = _books(["BTCUSDT"], FeedOptions()).receive(json.dumps(message).encode())

    assert updated.exchange_us == expected * 1000  # type: ignore[attr-defined]


def test_further_elements_of_a_level_are_ignored_and_counted() -> None:
    bids = [["100.5", "1", "7"], ["100.0", "2", []]]

    updated, ignored = _books(["BTCUSDT"], FeedOptions()).receive(_message("snapshot", 10, bids, ASKS))  # type: ignore[arg-type]

    assert updated.bids == ((100.5, 1.0), (100.0, 2.0))  # type: ignore[attr-defined]
    assert ignored == Ignored("BTCUSDT", "level elements after price and quantity")


@pytest.mark.parametrize("channel", ["orderbook.rpi", "orderbook.full", "tickers", "kline.1", "allLiquidation"])
def test_topics_that_are_not_used_are_named(channel: str) -> None:
    frame = _message("delta", 11, BIDS, ASKS).replace(b"orderbook.50.", f"{channel}.".encode())

    assert _live().receive(frame) == [Ignored("BTCUSDT", channel)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"op": "subscribe", "success": True, "req_id": 5, "ret_msg": ""}, [Acknowledged(5)]),
        ({"op": "subscribe", "success": True, "req_id": "5", "ret_msg": None}, [Acknowledged(5)]),
        ({"op": "auth.notice", "conn_id": "x"}, [Ignored("", "op auth.notice")]),
        ({"op": "subscribe", "success": False, "req_id": None, "ret_msg": "no"}, [Refused(None, "no")]),
    ],
    ids=str,
)
def test_replies_in_another_spelling(reply: dict[str, Any], expected: list[Any]) -> None:
    assert list(_live().receive(json.dumps(reply).encode())) == expected


def _sequenced(kind: str, update_id: int, sequence: int, bids: list[list[str]], asks: list[list[str]]) -> bytes:
    message = json.loads(_message(kind, update_id, bids, asks))
    message["data"]["seq"] = sequence
    return json.dumps(message).encode()


def test_a_full_book_is_numbered_by_the_engines_counter() -> None:
    body = {"retCode": 0, "result": {"s": "BTCUSDT", "b": [["1", "2", "x"]], "a": [["3", "4"]], "u": 9, "seq": 77}}

    book = decode_full_book(json.dumps(body).encode())

    assert (book.last_id, list(book.bids), list(book.asks)) == (77, [(1.0, 2.0)], [(3.0, 4.0)])


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"retCode":10001,"retMsg":"Not supported symbols","result":{}}', b'{"result":null}']
)
def test_an_answer_without_a_book_is_refused(body: bytes) -> None:
    with pytest.raises(WebSocketProtocolError):
        decode_full_book(body)


@pytest.mark.parametrize(
    ("sequence", "bid", "changing"),
    [
        (99, None, None),
        (100, 1.0, set()),
        (105, 1.0, {(1, 100.5)}),
        (110, 5.0, set()),
        (119, 5.0, {(-1, 101.0)}),
        (120, 5.0, set()),
        (500, 5.0, set()),
    ],
)
def test_a_history_has_the_book_between_two_updates(
    sequence: int, bid: float | None, changing: set[tuple[int, float]] | None
) -> None:
    protocol = _books(["BTCUSDT"], FeedOptions())
    protocol.line_up(0)
    protocol.receive(_sequenced("snapshot", 10, 100, BIDS, ASKS))
    history = protocol.start_history("BTCUSDT")
    assert history is not None
    protocol.receive(_sequenced("delta", 11, 110, [["100.5", "5"]], []))
    protocol.receive(_sequenced("delta", 12, 120, [], [["101.0", "9"]]))

    book = history.at(sequence)

    assert (None if book is None else book.bids[100.5]) == bid
    assert (None if book is None else book.changing) == changing


@pytest.mark.parametrize("frame", [_message("snapshot", 30, BIDS, ASKS), _message("delta", 19, [], ASKS)])
def test_a_history_ends_when_the_book_is_replaced_or_lost(frame: bytes) -> None:
    protocol = _live(0)
    history = protocol.start_history("BTCUSDT")
    assert history is not None

    protocol.receive(frame)

    assert history.is_over


def test_a_book_that_differs_is_lost_and_asked_for_again() -> None:
    assert _live(0).invalidate("BTCUSDT", "differs") == [BookLost("BTCUSDT", "differs"), ResubscribeNeeded("BTCUSDT")]


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
