"""Upbit's frames in all their spellings, and the one request that asks for everything."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import (
    BookLost,
    BookUnchanged,
    BookUpdated,
    Ignored,
    PrecisionLost,
    Refused,
    Topic,
    TradeHappened,
)
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.upbit_protocol import UpbitProtocol
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.snapshot import Levels

BTC, ETH = "KRW-BTC", "KRW-ETH"
TIME = 1_790_134_742_106
BIDS: Levels = ((116_538_000.0, 0.08120946), (116_537_000.0, 0.01129382))
ASKS: Levels = ((116_539_000.0, 0.02054761), (116_542_000.0, 0.0007772))

DEFAULT_FRAME = (
    b'{"type":"orderbook","code":"KRW-BTC","timestamp":1790134742106,"total_ask_size":2.51469375,'
    b'"total_bid_size":1.63815297,"orderbook_units":['
    b'{"ask_price":1.16539E8,"bid_price":1.16538E8,"ask_size":0.02054761,"bid_size":0.08120946},'
    b'{"ask_price":1.16542E8,"bid_price":1.16537E8,"ask_size":0.00077720,"bid_size":0.01129382}],'
    b'"stream_type":"SNAPSHOT","level":0}'
)
SIMPLE_FRAME = (
    b'{"ty":"orderbook","cd":"KRW-BTC","tms":1790134742106,"tas":2.51469375,"tbs":1.63815297,"obu":['
    b'{"ap":116539000,"bp":116538000.0,"as":0.02054761,"bs":0.08120946},'
    b'{"ap":1.16542e+8,"bp":116537000,"as":7.772E-4,"bs":0.01129382}],"st":"REALTIME","lv":0}'
)


def protocol(*natives: str, depth: int = 20, topics: Sequence[Topic] = ("book",), recording: bool = False) -> BookSet:
    tickets = count(1)
    options = FeedOptions("partial", depth, frozenset(topics))
    names = None if recording else natives or (BTC,)
    return BookSet(UpbitProtocol(names, options, lambda: f"ticket-{next(tickets)}", recorded=recording))


def book_frame(
    bids: Sequence[tuple[Any, Any]] = BIDS, asks: Sequence[tuple[Any, Any]] = ASKS, code: str = BTC, time: Any = TIME
) -> bytes:
    """A frame as short as can be; the shorter side is filled up with zeros."""
    padding = (0, 0)
    units = [
        {"ap": ask[0], "bp": bid[0], "as": ask[1], "bs": bid[1]}
        for bid, ask in (
            (bids[index] if index < len(bids) else padding, asks[index] if index < len(asks) else padding)
            for index in range(max(len(bids), len(asks)))
        )
    ]
    return json.dumps({"ty": "orderbook", "cd": code, "tms": time, "obu": units}).encode()


def request(upbit: BookSet, natives: Sequence[str] | None = None) -> list[dict[str, Any]]:
    (only,) = upbit.subscribe(natives or ())
    assert only.request_id is None
    message: list[dict[str, Any]] = json.loads(only.text)
    return message


@pytest.mark.parametrize("frame", [DEFAULT_FRAME, SIMPLE_FRAME], ids=["default", "simple"])
@pytest.mark.parametrize("listed", [False, True], ids=["object", "list"])
def test_every_format_says_the_same(frame: bytes, listed: bool) -> None:
    events = protocol().receive(b"[" + frame + b"]" if listed else frame)

    assert events == [BookUpdated(BTC, TIME, TIME * 1000, BIDS, ASKS)]


def test_the_order_of_the_keys_does_not_matter() -> None:
    frame = json.dumps(dict(reversed(json.loads(SIMPLE_FRAME).items()))).encode()

    assert protocol().receive(frame) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS, ASKS)]


def test_zero_padding_is_dropped_on_each_side_by_itself() -> None:
    upbit = protocol()

    assert upbit.receive(book_frame(BIDS, ASKS[:1])) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS, ASKS[:1])]
    assert upbit.receive(book_frame((), ASKS, time=TIME + 1)) == [
        BookUpdated(BTC, TIME + 1, (TIME + 1) * 1000, (), ASKS)
    ]
    assert upbit.receive(book_frame((), (), time=TIME + 2)) == [BookUpdated(BTC, TIME + 2, (TIME + 2) * 1000, (), ())]


def test_a_level_without_size_or_price_is_padding_however_zero_is_spelled() -> None:
    frame = SIMPLE_FRAME.replace(b"7.772E-4", b"0E-8").replace(b"116537000", b"0.00000000")

    assert protocol().receive(frame) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS[:1], ASKS[:1])]


def test_more_levels_than_asked_for_are_cut() -> None:
    assert protocol(depth=1).receive(SIMPLE_FRAME) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS[:1], ASKS[:1])]


def test_an_unchanged_book_only_moves_the_id() -> None:
    upbit = protocol()
    upbit.receive(book_frame())

    assert upbit.receive(book_frame(time=TIME + 100)) == [BookUnchanged(BTC, TIME + 100)]
    assert upbit.update_id(BTC) == TIME + 100


def test_of_two_books_in_one_millisecond_the_later_frame_wins() -> None:
    upbit = protocol()
    upbit.receive(book_frame())

    assert upbit.receive(book_frame(BIDS[:1])) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS[:1], ASKS)]


def test_a_late_frame_changes_nothing() -> None:
    upbit = protocol()
    upbit.receive(book_frame())

    assert list(upbit.receive(book_frame(BIDS[:1], time=TIME - 1))) == []


def test_an_old_time_is_no_reason_to_refuse_a_first_book() -> None:
    assert protocol().receive(book_frame(time=5)) == [BookUpdated(BTC, 5, 5000, BIDS, ASKS)]


def test_a_crossed_book_is_lost_and_the_next_frame_heals() -> None:
    upbit = protocol()
    upbit.receive(book_frame())

    assert upbit.receive(book_frame(ASKS[:1], BIDS[:1])) == [BookLost(BTC, "bids and asks cross")]
    assert upbit.update_id(BTC) is None
    assert upbit.receive(book_frame()) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS, ASKS)]


@pytest.mark.parametrize(
    "sides",
    [(BIDS[::-1], ASKS), (BIDS, ASKS[::-1]), ((BIDS[0], (BIDS[0][0], 1e-9)), ASKS)],
    ids=["bids", "asks", "a price twice"],
)
def test_levels_out_of_order_are_refused(sides: tuple[Levels, Levels]) -> None:
    with pytest.raises(WebSocketProtocolError, match="KRW-BTC: levels out of order"):
        protocol().receive(book_frame(*sides))


def test_frames_of_symbols_nobody_asked_for_are_passed_over() -> None:
    upbit = protocol(ETH, topics=("book", "trades"))

    assert list(upbit.receive(SIMPLE_FRAME)) == []
    assert list(upbit.receive(trade_frame())) == []
    assert upbit.natives == (ETH,)


def test_a_recording_may_hold_any_symbol() -> None:
    upbit = protocol(recording=True)

    assert upbit.receive(DEFAULT_FRAME) == [BookUpdated(BTC, TIME, TIME * 1000, BIDS, ASKS)]
    assert upbit.natives == (BTC,)
    assert upbit.subscribe() == []


def test_numbers_with_more_digits_than_float64_keeps_are_told_once_a_symbol() -> None:
    long = book_frame([(99.5, 1.0)], [(100.5, 1.0)]).replace(b"1.0,", b"14444463.76230923,", 1)
    upbit = protocol()

    assert upbit.receive(long)[0] == PrecisionLost(BTC, "14444463.76230923")
    assert [type(event) for event in upbit.receive(long.replace(b"106", b"107"))] == [BookUnchanged]


def test_exponents_and_trailing_zeros_are_no_digits() -> None:
    frame = book_frame().replace(b"0.0007772", b"1.2345678901234500000E-4")

    assert not any(isinstance(event, PrecisionLost) for event in protocol().receive(frame))


@pytest.mark.parametrize(("depth", "suffix"), [(1, 1), (2, 5), (5, 5), (6, 15), (15, 15), (16, 30), (20, 30), (30, 30)])
def test_the_request_asks_for_the_fewest_levels_that_suffice(depth: int, suffix: int) -> None:
    assert request(protocol(BTC, ETH, depth=depth)) == [
        {"ticket": "ticket-1"},
        {"type": "orderbook", "codes": [f"{BTC}.{suffix}", f"{ETH}.{suffix}"]},
        {"format": "SIMPLE"},
    ]


def test_every_request_names_everything_whichever_symbols_it_is_for() -> None:
    upbit = protocol(BTC, ETH, topics=("book", "trades"))

    first, again = request(upbit), request(upbit, [ETH])

    assert first[1:] == again[1:]
    assert first[1:3] == [
        {"type": "orderbook", "codes": [f"{BTC}.30", f"{ETH}.30"]},
        {"type": "trade", "codes": [BTC, ETH], "is_only_realtime": True},
    ]
    assert first[0] != again[0]


def test_a_ticket_is_never_used_twice() -> None:
    tickets = {request(BookSet(UpbitProtocol([BTC], FeedOptions())))[0]["ticket"] for _ in range(100)}

    assert len(tickets) == 100


def test_the_whole_exchange_is_one_request() -> None:
    natives = [f"KRW-A{number}" for number in range(855)]

    assert len(request(protocol(*natives))[1]["codes"]) == 855


def test_without_the_book_topic_there_is_no_book() -> None:
    upbit = protocol(topics=("trades",))

    assert upbit.natives == ()
    assert [part.get("type") for part in request(upbit)] == [None, "trade", None]
    assert list(upbit.receive(SIMPLE_FRAME)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (FeedOptions(depth=31), "upbit sends at most 30 levels a side, not 31"),
        (FeedOptions(topics=frozenset({"book", "quote"})), "upbit has no quote topic: use book, trades"),
    ],
)
def test_what_the_exchange_does_not_offer_is_an_error(options: FeedOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UpbitProtocol([BTC], options)


def trade_frame(side: str = "ASK", *, short: bool = True, **changes: Any) -> bytes:
    names = ("ty", "cd", "sid", "tp", "tv", "ab", "ttms", "tms")
    if not short:
        names = (
            *("type", "code", "sequential_id", "trade_price", "trade_volume", "ask_bid"),
            *("trade_timestamp", "timestamp"),
        )
    values = ("trade", BTC, 17_901_347_421_060_000, 1.16539e8, 0.00012, side, TIME, TIME + 3)
    return json.dumps(dict(zip(names, values, strict=True)) | changes).encode()


@pytest.mark.parametrize("short", [False, True], ids=["default", "simple"])
@pytest.mark.parametrize(("side", "aggressor"), [("ASK", "sell"), ("BID", "buy")])
def test_a_trade_says_who_took(side: str, aggressor: Any, short: bool) -> None:
    upbit = protocol(topics=("book", "trades"))

    assert upbit.receive(trade_frame(side, short=short)) == [
        TradeHappened(BTC, 17_901_347_421_060_000, 116_539_000.0, 0.00012, aggressor, TIME * 1000)
    ]


def test_trades_nobody_asked_for_are_passed_over() -> None:
    assert list(protocol().receive(trade_frame())) == []


@pytest.mark.parametrize(
    "frame",
    [
        '{"error":{"name":"NO_TICKET","message":"티켓이 존재하지 않습니다."}}',
        '{"error":{"message":"티켓이 존재하지 않습니다.","name":"NO_TICKET"}}',
        '[{"error":{"name":"NO_TICKET","message":"티켓이 존재하지 않습니다."}}]',
    ],
)
def test_an_error_is_a_refusal_of_nobody_knows_which_request(frame: str) -> None:
    assert protocol().receive(frame.encode()) == [Refused(None, "NO_TICKET: 티켓이 존재하지 않습니다.")]


@pytest.mark.parametrize(
    "frame",
    [
        '{"status":"UP"}',
        '{"method":"LIST_SUBSCRIPTIONS","result":[{"type":"orderbook","codes":["KRW-BTC"],"level":0}],"ticket":"t1"}',
        '{"mthd":"LIST_SUBSCRIPTIONS","rslt":[{"ty":"orderbook","cds":["KRW-BTC"],"lv":0}],"tckt":"t1"}',
    ],
)
def test_what_is_known_and_not_wanted_is_passed_over(frame: str) -> None:
    assert list(protocol().receive(frame.encode())) == []


@pytest.mark.parametrize(
    "frame",
    [
        *(b"", b"null", b"1", b'"PING"', b"{}", b"[1]", b"[{}]", b"\xff\xfe", b"[" * 5000, SIMPLE_FRAME[:100]),
        *(b'{"cd":"KRW-BTC"}', b'{"ty":"orderbook"}', b'{"type":"trade","code":"KRW-BTC"}'),
        SIMPLE_FRAME.replace(b"1790134742106", b"-1"),
        SIMPLE_FRAME.replace(b"1790134742106", b"1e400"),
        SIMPLE_FRAME.replace(b"0.02054761", b"-1"),
        SIMPLE_FRAME.replace(b"0.02054761", b"NaN"),
        SIMPLE_FRAME.replace(b"0.02054761", b"1e999"),
        SIMPLE_FRAME.replace(b'"ap":116539000,', b""),
        trade_frame("MAYBE"),
        trade_frame(sid=0),
        trade_frame(sid=-1),
        trade_frame(sid=2**63),
        trade_frame(tp=0),
        trade_frame(tv=-1),
        b'{"ty":"ticker","x":"' + b"x" * 5_000_000 + b'"}',
    ],
)
def test_nonsense_is_refused_and_leaves_the_book(frame: bytes) -> None:
    upbit = protocol(topics=("book", "trades"))
    upbit.receive(SIMPLE_FRAME)

    with pytest.raises(WebSocketProtocolError):
        upbit.receive(frame)

    assert upbit.update_id(BTC) == TIME


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ('{"type":"ticker","code":"KRW-BTC","trade_price":1.0}', "ticker"),
        ('{"ty":"candle.1s","cd":"KRW-BTC"}', "candle.1s"),
        ('[{"ty":"myOrder","cd":"KRW-BTC"}]', "myOrder"),
    ],
)
def test_data_of_another_type_is_ignored_by_name(frame: str, kind: str) -> None:
    assert protocol().receive(frame.encode()) == [Ignored("", kind)]


@pytest.mark.parametrize(
    "frame",
    [
        SIMPLE_FRAME.replace(b"1790134742106", b'"1790134742106"'),
        SIMPLE_FRAME.replace(b"0.02054761", b'"0.02054761"'),
    ],
    ids=["time", "size"],
)
def test_a_number_written_as_text_is_a_number(frame: bytes) -> None:
    events = protocol().receive(frame)

    assert events == [*protocol().receive(SIMPLE_FRAME), Ignored("", "unusual spelling of fields")]


@pytest.mark.parametrize(
    "changes", [{"ab": "ask"}, {"ttms": str(TIME)}, {"ttms": float(TIME)}, {"tp": "116539000"}], ids=str
)
def test_a_trade_in_another_spelling_is_the_same_trade(changes: dict[str, Any]) -> None:
    events = protocol(topics=("trades",)).receive(trade_frame(**changes))

    assert events[:1] == protocol(topics=("trades",)).receive(trade_frame())


def test_times_in_microseconds_are_the_same_times() -> None:
    (book,) = protocol().receive(SIMPLE_FRAME.replace(b"1790134742106", b"1790134742106000"))

    assert book.exchange_us == 1_790_134_742_106_000  # type: ignore[attr-defined]


def test_fields_that_nobody_knows_are_ignored() -> None:
    fields = json.loads(SIMPLE_FRAME) | {"new": [1]}
    fields["obu"] = [unit | {"n": 3} for unit in fields["obu"]]

    assert protocol().receive(json.dumps(fields).encode()) == protocol().receive(SIMPLE_FRAME)


def test_only_the_end_of_the_last_line_loses_the_books() -> None:
    upbit = protocol(BTC, ETH)
    upbit.line_up(1)
    upbit.line_up(2)
    upbit.receive(SIMPLE_FRAME, 1)

    assert upbit.line_down(1, "gone") == []
    assert upbit.line_down(2, "gone") == [BookLost(BTC, "gone")]


def test_answers_to_requests_say_nothing() -> None:
    upbit = protocol()

    with pytest.raises(WebSocketProtocolError, match="no snapshots"):
        upbit.apply_snapshot(BTC, 30, b"[]")
    assert list(upbit.receive_recorded("https://api.upbit.com/v1/orderbook?markets=KRW-BTC", DEFAULT_FRAME)) == []


prices = st.lists(st.integers(1, 10**9), unique=True, max_size=15).map(sorted)
sizes = st.integers(1, 10**12).map(lambda units: units / 1e8)


@given(data=st.data(), bids=prices, asks=prices, depth=st.integers(1, 30))
def test_any_book_comes_out_as_it_went_in(data: st.DataObject, bids: list[int], asks: list[int], depth: int) -> None:
    offset = bids[-1] if bids else 0
    bid_side = [(float(price), data.draw(sizes)) for price in reversed(bids)]
    ask_side = [(float(price + offset), data.draw(sizes)) for price in asks]

    (event,) = [
        event
        for event in protocol(depth=depth).receive(book_frame(bid_side, ask_side))
        if not isinstance(event, PrecisionLost)
    ]

    assert event == BookUpdated(BTC, TIME, TIME * 1000, tuple(bid_side[:depth]), tuple(ask_side[:depth]))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_say_nothing(frame: bytes) -> None:
    try:
        events = protocol().receive(frame)
    except WebSocketProtocolError:
        return
    # A type of data that is not used is named; nothing else comes of arbitrary bytes.
    assert all(isinstance(event, Ignored) and not event.native for event in events)
