"""Binance's messages: what they mean, and that a bad one changes nothing."""

import json
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bookbus.feeders.books.book_set import MAX_FRAME_BYTES, BookSet
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
    SnapshotNeeded,
    Topic,
    TradeHappened,
)
from bookbus.feeders.books.synchronizer import RangeSync, ReplaceSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.binance_protocol import MAX_SUBSCRIBE_BYTES, decode_answer
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.venue import FeedMode, FeedOptions
from tests.support.depth import ASKS, BIDS, combined_frame, depth_answer, diff_frame, partial_frame

EVERY_TOPIC: frozenset[Topic] = frozenset({"book", "quote", "trades"})
LIVE_BOOK = BookUpdated("BTCUSDT", 100, None, tuple(BIDS), tuple(ASKS))


def books_of(natives: Sequence[str] | None, options: FeedOptions, *, recorded: bool = False) -> BookSet:
    """The exchange's messages, and the books that they make."""
    return BookSet(VENUE.protocol(natives, options, recorded=recorded), VENUE.snapshots)


def new_protocol(
    *natives: str, mode: FeedMode = "diff", depth: int = 20, topics: frozenset[Topic] = EVERY_TOPIC
) -> BookSet:
    protocol = books_of(natives or ("BTCUSDT",), FeedOptions(mode, depth, topics))
    protocol.line_up(0)
    return protocol


def live_protocol(*natives: str) -> BookSet:
    """Every book live at id 100, by a snapshot as deep as any: nothing more is asked."""
    protocol = books_of(natives or ("BTCUSDT",), FeedOptions("diff", 20, EVERY_TOPIC, snapshot_limit=100))
    protocol.line_up(0)
    acknowledge(protocol)
    for native in protocol.natives:
        protocol.apply_snapshot(native, 100, depth_answer(100))
        assert protocol.update_id(native) == 100
    return protocol


def acknowledge(protocol: BookSet) -> list[Event]:
    return [
        event
        for request in protocol.subscribe()
        for event in protocol.receive(json.dumps({"result": None, "id": request.request_id}).encode())
    ]


def quote_frame(update_id: int, **changes: Any) -> bytes:
    data = {"u": update_id, "s": "BTCUSDT", "b": "99.0", "B": "1.0", "a": "101.0", "A": "2.0"}
    return combined_frame("btcusdt@bookTicker", data | changes)


def trade_frame(**changes: Any) -> bytes:
    data = {
        "e": "trade",
        "E": 1_700,
        "s": "BTCUSDT",
        "t": 7,
        "p": "100.5",
        "q": "0.25",
        "T": 1_699,
        "m": True,
        "M": True,
    }
    return combined_frame("btcusdt@trade", data | changes)


# Asking for streams.


def test_requests_that_are_never_answered_do_not_pile_up() -> None:
    protocol = books_of(["BTCUSDT"], FeedOptions())
    for _ in range(2_000):
        protocol.subscribe()

    assert len(protocol._requested) <= 1_000


def test_a_subscription_names_every_stream_in_lower_case_with_an_id() -> None:
    (request,) = new_protocol("BTCUSDT", "ETHUSDT").subscribe()

    assert json.loads(request.text) == {
        "method": "SUBSCRIBE",
        "params": [
            *("btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@trade"),
            *("ethusdt@depth@100ms", "ethusdt@bookTicker", "ethusdt@trade"),
        ],
        "id": request.request_id,
    }


@pytest.mark.parametrize(("depth", "stream"), [(1, "depth5"), (5, "depth5"), (6, "depth10"), (20, "depth20")])
def test_partial_mode_subscribes_to_the_smallest_stream_that_is_deep_enough(depth: int, stream: str) -> None:
    protocol = new_protocol(mode="partial", depth=depth, topics=frozenset({"book"}))

    (request,) = protocol.subscribe()

    assert json.loads(request.text)["params"] == [f"btcusdt@{stream}@100ms"]


@pytest.mark.parametrize("names", ["SYM{:04}USDT", "A{}", "1000000LONGNAME{:04}FDUSD", "币安人生{}USDT"])
def test_many_streams_are_asked_for_in_messages_that_the_exchange_reads(names: str) -> None:
    natives = [names.format(number) for number in range(700)]

    requests = new_protocol(*natives, topics=frozenset({"book"})).subscribe()

    sent = [json.loads(request.text) for request in requests]
    assert [stream for message in sent for stream in message["params"]] == [
        f"{native.lower()}@depth@100ms" for native in natives
    ]
    assert all(len(request.text.encode()) < MAX_SUBSCRIBE_BYTES for request in requests)
    assert all(len(message["params"]) <= 150 for message in sent)
    assert len({message["id"] for message in sent}) == len(sent)
    assert len(requests) <= 1 + max(700 / 100, sum(len(request.text.encode()) for request in requests) / 3_000)


def test_every_subscription_has_a_new_id_on_every_connection() -> None:
    protocol = new_protocol()

    ids = [request.request_id for _ in range(3) for request in protocol.subscribe()]

    assert len(set(ids)) == 3


def test_a_part_of_the_symbols_can_be_asked_for_again() -> None:
    protocol = new_protocol("BTCUSDT", "ETHUSDT", topics=frozenset({"book"}))

    (request,) = protocol.subscribe(["ETHUSDT"])

    assert json.loads(request.text)["params"] == ["ethusdt@depth@100ms"]


def test_a_symbol_named_twice_is_one() -> None:
    protocol = new_protocol("BTCUSDT", "BTCUSDT", topics=frozenset({"book"}))

    assert json.loads(protocol.subscribe()[0].text)["params"] == ["btcusdt@depth@100ms"]
    assert protocol.natives == ("BTCUSDT",)


@pytest.mark.parametrize(("mode", "depth", "names"), [("partial", 21, "--mode diff"), ("diff", 5_001, "5000")])
def test_a_depth_that_cannot_be_had_is_refused(mode: FeedMode, depth: int, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        new_protocol(mode=mode, depth=depth)


# Replies and notices.


def test_an_acknowledgement_asks_for_the_snapshots_of_its_symbols() -> None:
    protocol = new_protocol("BTCUSDT", "ETHUSDT")
    (request,) = protocol.subscribe()

    events = protocol.receive(f'{{"result":null,"id":{request.request_id}}}'.encode())

    assert events == [
        Acknowledged(request.request_id or 0),
        SnapshotNeeded("BTCUSDT", 100, urgent=True),
        SnapshotNeeded("ETHUSDT", 100, urgent=True),
    ]


def test_an_acknowledgement_on_a_second_connection_asks_nothing_for_live_books() -> None:
    protocol = live_protocol()

    assert [type(event) for event in acknowledge(protocol)] == [Acknowledged]


def test_partial_mode_needs_no_snapshot() -> None:
    assert [type(event) for event in acknowledge(new_protocol(mode="partial"))] == [Acknowledged]


def test_a_list_of_subscriptions_is_a_reply_like_any_other() -> None:
    assert new_protocol().receive(b'{"result":["btcusdt@depth@100ms"],"id":77}') == [Acknowledged(77)]


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b'{"error":{"code":2,"msg":"Invalid request"},"id":3}', Refused(3, "Invalid request (code 2)")),
        (b'{"code":2,"msg":"Invalid request","id":3}', Refused(3, "Invalid request (code 2)")),
        (b'{"code":0,"msg":"Unknown property"}', Refused(None, "Unknown property (code 0)")),
        (b'{"code":3,"msg":"Invalid JSON","id":"abc"}', Refused(None, "Invalid JSON (code 3)")),
        (b'{"error":{"code":1,"msg":"no"},"id":null}', Refused(None, "no (code 1)")),
    ],
)
def test_both_shapes_of_an_error_are_a_refusal(frame: bytes, event: Event) -> None:
    protocol = new_protocol()
    protocol.subscribe()

    assert protocol.receive(frame) == [event]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    ],
    ids=["raw", "combined"],
)
def test_a_shutdown_notice_asks_for_another_connection(frame: bytes) -> None:
    protocol = live_protocol()

    (event,) = protocol.receive(frame)

    assert isinstance(event, ClosingSoon)
    assert protocol.update_id("BTCUSDT") == 100


@pytest.mark.parametrize(
    ("stream", "ignored"),
    [
        ("!ticker@arr", Ignored("!TICKER", "!ticker@arr")),
        ("btcusdt@aggTrade", Ignored("BTCUSDT", "aggTrade")),
        ("btcusdt@kline_1m", Ignored("BTCUSDT", "kline_1m")),
        ("btcusdt@depth", Ignored("BTCUSDT", "depth")),
        ("btcusdt@depth20@100ms", Ignored("BTCUSDT", "depth20@100ms")),
        ("ethusdt@depth@100ms", None),
        ("x", None),
    ],
)
def test_streams_nobody_asked_for_are_ignored_by_name(stream: str, ignored: Ignored | None) -> None:
    protocol = live_protocol()
    frame = diff_frame(102).replace(b"btcusdt@depth@100ms", stream.encode())

    assert list(protocol.receive(frame)) == ([] if ignored is None else [ignored])
    assert protocol.natives == ("BTCUSDT",)
    assert protocol.update_id("BTCUSDT") == 100


def test_topics_nobody_asked_for_are_ignored() -> None:
    protocol = new_protocol(topics=frozenset({"book"}))

    assert list(protocol.receive(quote_frame(1))) == []
    assert list(protocol.receive(trade_frame())) == []


# Diff mode.


def test_snapshot_and_diffs_make_a_book() -> None:
    protocol = new_protocol(depth=2)

    assert protocol.update_id("BTCUSDT") is None
    assert protocol.receive(diff_frame(95, 101, bids=[(99.0, 4.0)])) == [SnapshotNeeded("BTCUSDT", 100, urgent=True)]
    assert protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100)) == [
        BookUpdated("BTCUSDT", 101, 1_700_000_000_000_000, ((99.0, 4.0), (98.0, 2.0)), tuple(ASKS)),
        SnapshotNeeded("BTCUSDT", 1_000, urgent=False),
    ]
    assert protocol.receive(diff_frame(102, 103, asks=[(101.0, 0.0)], event_time_ms=1_700)) == [
        BookUpdated("BTCUSDT", 103, 1_700_000, ((99.0, 4.0), (98.0, 2.0)), ((102.0, 2.0),))
    ]
    assert protocol.update_id("BTCUSDT") == 103


@pytest.mark.parametrize(
    ("depth", "snapshot_limit", "first", "deep"),
    [
        (20, None, 100, 1_000),
        (20, 5_000, 100, 5_000),
        (100, None, 200, 1_000),
        (800, None, 1_600, 1_600),
        (20, 50, 100, 0),
    ],
)
def test_the_first_snapshot_is_small_and_the_next_one_deep(
    depth: int, snapshot_limit: int | None, first: int, deep: int
) -> None:
    protocol = books_of(["BTCUSDT"], FeedOptions(depth=depth, snapshot_limit=snapshot_limit))
    protocol.line_up(0)

    asked = [event for event in acknowledge(protocol) if isinstance(event, SnapshotNeeded)]
    then = protocol.apply_snapshot("BTCUSDT", first, depth_answer(100))

    assert asked == [SnapshotNeeded("BTCUSDT", first, urgent=True)]
    assert [event for event in then if isinstance(event, SnapshotNeeded)] == (
        [SnapshotNeeded("BTCUSDT", deep, urgent=False)] if deep > first else []
    )


def test_no_snapshot_is_smaller_than_the_first_whatever_limit_is_wanted() -> None:
    protocol = books_of(["BTCUSDT"], FeedOptions(snapshot_limit=5))
    acknowledge(protocol)
    bids = [(200.0 - index, 1.0) for index in range(100)]
    protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100, bids, [(201.0, 1.0)]))

    events = protocol.receive(diff_frame(101, bids=[(price, 0.0) for price, _ in bids[:90]]))

    assert SnapshotNeeded("BTCUSDT", 100, urgent=True) in events


@pytest.mark.parametrize(("bids", "asks"), [([], ASKS), (BIDS, []), ([], [])], ids=["bids", "asks", "both"])
def test_a_snapshot_without_a_side_is_believed_when_the_next_one_says_the_same(bids: Any, asks: Any) -> None:
    protocol = new_protocol()
    acknowledge(protocol)

    with pytest.raises(WebSocketProtocolError, match="one side has no level"):
        protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100, bids, asks))
    assert protocol.update_id("BTCUSDT") is None
    updated, _ = protocol.apply_snapshot("BTCUSDT", 100, depth_answer(101, bids, asks))

    assert updated == BookUpdated("BTCUSDT", 101, None, tuple(bids), tuple(asks))


def test_a_whole_snapshot_after_one_without_a_side_is_the_book() -> None:
    protocol = new_protocol()
    acknowledge(protocol)
    with pytest.raises(WebSocketProtocolError):
        protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100, []))
    protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100))

    assert protocol.update_id("BTCUSDT") == 100
    with pytest.raises(WebSocketProtocolError):
        protocol.apply_snapshot("BTCUSDT", 1_000, depth_answer(101, []))
    assert protocol.update_id("BTCUSDT") == 100


def test_a_gap_concerns_its_own_symbol_only() -> None:
    protocol = live_protocol("BTCUSDT", "ETHUSDT")

    events = protocol.receive(diff_frame(102, native="ETHUSDT"))

    assert events == [
        BookLost("ETHUSDT", "expected update 101, received 102"),
        SnapshotNeeded("ETHUSDT", 100, urgent=True),
    ]
    assert (protocol.update_id("BTCUSDT"), protocol.update_id("ETHUSDT")) == (100, None)


@pytest.mark.parametrize(
    ("bids", "asks", "published"),
    [
        ([(99.0, 3.0)], [], (((99.0, 3.0), (98.0, 2.0)), tuple(ASKS))),
        ([], [(101.0, 0.0), (102.0, 0.0)], (tuple(BIDS), ())),
        ([], [], None),
    ],
)
def test_one_sided_and_empty_diffs(bids: Any, asks: Any, published: Any) -> None:
    protocol = live_protocol()

    (event,) = protocol.receive(diff_frame(101, bids=bids, asks=asks))

    if published is None:
        assert event == BookUnchanged("BTCUSDT", 101)
    else:
        assert event == BookUpdated("BTCUSDT", 101, 1_700_000_000_000_000, *published)


def test_fields_that_nobody_knows_are_ignored() -> None:
    frame = json.loads(diff_frame(101))
    frame["data"] |= {"st": 2, "pu": [1, {"x": None}]}
    protocol = live_protocol()

    assert protocol.receive(json.dumps(frame | {"more": True}).encode()) == [BookUnchanged("BTCUSDT", 101)]


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda frame: json.dumps({"data": frame["data"], "stream": frame["stream"]}),
        lambda frame: json.dumps(frame, indent=2),
        lambda frame: json.dumps(frame).replace("btcusdt", "\\u0062tcusdt"),
    ],
    ids=["stream last", "spaced", "escaped"],
)
def test_a_frame_means_the_same_however_it_is_written(rewrite: Callable[[Any], str]) -> None:
    protocol = live_protocol()

    for update_id in (101, 102):
        frame = rewrite(json.loads(diff_frame(update_id))).encode()
        assert protocol.receive(frame) == [BookUnchanged("BTCUSDT", update_id)]
    assert protocol.receive(diff_frame(103)) == [BookUnchanged("BTCUSDT", 103)]
    assert protocol.receive(b'{"result":null,"id":77}') == [Acknowledged(77)]


@pytest.mark.parametrize("native", ["币安人生USDT", "ÄÖÜUSDT", "İSTUSDT", "STRAßEUSDT"])
def test_symbols_need_not_be_ascii(native: str) -> None:
    protocol = new_protocol(native)

    asked = acknowledge(protocol)[1:]
    protocol.apply_snapshot(native, 100, depth_answer(100))
    events = protocol.receive(diff_frame(101, native=native))

    assert asked == [SnapshotNeeded(native, 100, urgent=True)]
    assert events == [BookUnchanged(native, 101)]


def test_numbers_beyond_what_float64_keeps_are_told_once_a_symbol() -> None:
    protocol = new_protocol()
    protocol.receive(diff_frame(100))
    long = depth_answer(100).replace(b'"1.00000000"', b'"1234567.1234567890"')

    first = protocol.apply_snapshot("BTCUSDT", 100, long)
    protocol.snapshot_requested("BTCUSDT")
    second = protocol.apply_snapshot("BTCUSDT", 1_000, long)

    assert first[0] == PrecisionLost("BTCUSDT", "1234567.1234567890")
    assert [type(event) for event in second] == [BookUnchanged]


def test_an_answer_for_an_unknown_symbol_or_to_no_question_changes_nothing() -> None:
    protocol = live_protocol()

    assert list(protocol.apply_snapshot("XRPUSDT", 100, depth_answer(500))) == []
    assert list(protocol.apply_snapshot("BTCUSDT", 100, depth_answer(500))) == []
    assert protocol.natives == ("BTCUSDT",)
    assert protocol.update_id("BTCUSDT") == 100


# Lines.


def test_the_end_of_the_only_line_loses_every_book_and_quote() -> None:
    protocol = live_protocol("BTCUSDT", "ETHUSDT")
    protocol.receive(quote_frame(5))

    lost = protocol.line_down(0, "connection reset")

    assert lost == [
        BookLost("BTCUSDT", "connection reset"),
        BookLost("BTCUSDT", "connection reset", "quote"),
        BookLost("ETHUSDT", "connection reset"),
    ]
    assert [event for event in acknowledge(protocol) if isinstance(event, SnapshotNeeded)] == [
        SnapshotNeeded(native, 100, urgent=True) for native in ("BTCUSDT", "ETHUSDT")
    ]


def test_a_planned_change_of_connections_loses_nothing() -> None:
    protocol = live_protocol()
    protocol.line_up(1)

    events = [
        *protocol.receive(diff_frame(101), 0),
        *protocol.receive(diff_frame(101), 1),
        *protocol.receive(diff_frame(102), 1),
        *protocol.line_down(0, "replaced"),
        *protocol.receive(diff_frame(103), 1),
    ]

    assert events == [BookUnchanged("BTCUSDT", update_id) for update_id in (101, 102, 103)]


# Partial mode.


def test_a_partial_frame_is_a_whole_book_without_a_time() -> None:
    protocol = new_protocol(mode="partial")

    assert protocol.receive(partial_frame(100)) == [LIVE_BOOK]
    assert protocol.receive(partial_frame(101)) == [BookUnchanged("BTCUSDT", 101)]
    assert list(protocol.receive(partial_frame(99, bids=[(50.0, 1.0)]))) == []
    assert protocol.receive(partial_frame(160, bids=())) == [BookUpdated("BTCUSDT", 160, None, (), tuple(ASKS))]


def test_a_partial_frame_is_cut_to_the_published_depth() -> None:
    protocol = new_protocol(mode="partial", depth=1)

    assert protocol.receive(partial_frame(100, levels=5)) == [
        BookUpdated("BTCUSDT", 100, None, tuple(BIDS[:1]), tuple(ASKS[:1]))
    ]


def test_partial_mode_tells_of_long_numbers_too() -> None:
    protocol = new_protocol(mode="partial")
    frame = partial_frame(100).replace(b'"1.00000000"', b'"1234567.1234567890"')

    assert protocol.receive(frame)[0] == PrecisionLost("BTCUSDT", "1234567.1234567890")
    assert [type(event) for event in protocol.receive(frame)] == [BookUnchanged]


# Quotes and trades.


def test_a_quote_is_a_book_of_one_level() -> None:
    protocol = live_protocol()

    assert protocol.receive(quote_frame(400_900_217)) == [
        BookUpdated("BTCUSDT", 400_900_217, None, ((99.0, 1.0),), ((101.0, 2.0),), "quote")
    ]
    assert protocol.update_id("BTCUSDT", "quote") == 400_900_217
    assert protocol.update_id("BTCUSDT") == 100


@pytest.mark.parametrize(
    ("zeros", "bids", "asks"),
    [
        ({"b": "0.00000000", "B": "0.00000000"}, (), ((101.0, 2.0),)),
        ({"a": "0.00000000", "A": "0.00000000"}, ((99.0, 1.0),), ()),
    ],
)
def test_a_quote_of_zero_is_an_empty_side_and_never_a_price(zeros: dict[str, str], bids: Any, asks: Any) -> None:
    (event,) = live_protocol().receive(quote_frame(1, **zeros))

    assert event == BookUpdated("BTCUSDT", 1, None, bids, asks, "quote")


@pytest.mark.parametrize(("buyer_is_maker", "aggressor"), [(True, "sell"), (False, "buy")])
def test_the_aggressor_of_a_trade_is_who_was_not_the_maker(buyer_is_maker: bool, aggressor: Any) -> None:
    events = live_protocol().receive(trade_frame(m=buyer_is_maker))

    assert events == [TradeHappened("BTCUSDT", 7, 100.5, 0.25, aggressor, 1_699_000)]


# Recordings: any symbol, any stream of a book, answers by their address.


DEPTH_URL = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"


def recorded() -> BookSet:
    return books_of(None, FeedOptions(), recorded=True)


def test_a_recording_brings_its_own_symbols() -> None:
    protocol = recorded()

    protocol.receive(diff_frame(101, native="ETHUSDT"))
    protocol.receive(diff_frame(101))

    assert protocol.natives == ("ETHUSDT", "BTCUSDT")


def test_a_recorded_answer_is_known_by_its_address() -> None:
    protocol = recorded()
    protocol.receive(diff_frame(101))

    assert protocol.receive_recorded(DEPTH_URL, depth_answer(100))[0] == BookUpdated(
        "BTCUSDT", 101, 1_700_000_000_000_000, tuple(BIDS), tuple(ASKS)
    )


def test_a_recorded_answer_without_a_limit_has_the_exchanges_default() -> None:
    protocol = recorded()
    protocol.receive(diff_frame(101))

    events = protocol.receive_recorded("https://x/api/v3/depth?symbol=BTCUSDT", depth_answer(100))

    assert events[-1] == SnapshotNeeded("BTCUSDT", 1_000, urgent=False)  # 100 levels are not deep enough


def test_a_recorded_answer_has_at_most_5000_levels_whatever_was_asked_for() -> None:
    protocol = recorded()
    protocol.receive(diff_frame(101))
    bids = [(9_000.0 - index, 1.0) for index in range(5_000)]

    protocol.receive_recorded(DEPTH_URL.replace("1000", "10000"), depth_answer(101, bids, [(9_001.0, 1.0)]))
    events = protocol.receive(diff_frame(102, bids=[(price, 0.0) for price, _ in bids[:4_999]]))

    assert KnownWindowLeft("BTCUSDT") in events  # the side was not whole


@pytest.mark.parametrize(
    "url", ["https://x/api/v3/time", "https://x/api/v3/depth", "https://x/api/v3/exchangeInfo?symbol=BTCUSDT", ""]
)
def test_other_recorded_answers_say_nothing(url: str) -> None:
    assert list(recorded().receive_recorded(url, b"whatever")) == []


@pytest.mark.parametrize("url", ["https://x/depth?symbol=BTCUSDT&limit=many", "https://[x/depth?symbol=BTCUSDT"])
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(WebSocketProtocolError):
        recorded().receive_recorded(url, depth_answer(100))


@pytest.mark.parametrize("natives", [None, ["BTCUSDT"]])
def test_a_recording_of_partial_frames_needs_no_mode(natives: Sequence[str] | None) -> None:
    protocol = books_of(natives, FeedOptions(), recorded=True)

    assert protocol.receive(partial_frame(100)) == [LIVE_BOOK]
    assert protocol.natives == ("BTCUSDT",)


def test_of_two_streams_with_the_same_book_the_first_counts() -> None:
    protocol = recorded()
    protocol.receive(diff_frame(101))

    slow = diff_frame(50, 140).replace(b"@depth@100ms", b"@depth")
    assert list(protocol.receive(slow)) == []
    assert list(protocol.receive(partial_frame(120))) == []
    assert protocol.apply_snapshot("BTCUSDT", 1_000, depth_answer(100))[0].update_id == 101  # type: ignore[attr-defined]
    assert protocol.receive(diff_frame(102)) == [BookUnchanged("BTCUSDT", 102)]


# Bad input: each one is refused, and nothing has changed.


def with_data(**changes: Any) -> bytes:
    """A diff that would follow, but for these changes; None removes a field."""
    frame = json.loads(diff_frame(101, bids=[(99.0, 5.0)], asks=[(101.0, 5.0)]))
    data = {key: value for key, value in (frame["data"] | changes).items() if value is not None}
    return combined_frame(frame["stream"], data)


def with_bid(price: Any, quantity: Any) -> bytes:
    return with_data(b=[[price, quantity]])


VALID = diff_frame(101, bids=[(99.0, 5.0)])
BAD_FRAMES = {
    "nothing": b"",
    "no JSON": b"hello",
    "bytes that are no text": b"\xff\xfe\x00\x80",
    "a stream that is no text": VALID.replace(b"btcusdt", b"btc\xff\xfeusdt"),
    "a level that is no text": VALID.replace(b'"99.00000000"', b'"\xff\xfe"'),
    "a cut-off frame": VALID[:-1],
    "a frame cut off in its stream": VALID[:20],
    "two frames": VALID + VALID,
    "an array": b"[" + VALID + b"]",
    "an empty array": b"[]",
    "a number": b"42",
    "null": b"null",
    "an object of nothing": b"{}",
    "a stream that is a number": b'{"stream":5,"data":{}}',
    "a stream without data": b'{"stream":"btcusdt@depth@100ms"}',
    "data that is null": b'{"stream":"btcusdt@depth@100ms","data":null}',
    "data that is a text": b'{"stream":"btcusdt@depth@100ms","data":"x"}',
    "data that is an array": b'{"stream":"btcusdt@depth@100ms","data":[1,2]}',
    "deep nesting": b'{"stream":"btcusdt@depth@100ms","data":' + b"[" * 100_000,
    "deep nesting in an unknown stream": b'{"stream":"x","data":' + b'{"a":' * 100_000,
    "deep nesting beside the data": VALID[:-1] + b',"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "five megabytes of text": b'{"stream":"btcusdt@depth@100ms","data":"' + b"x" * 5_000_000 + b'"}',
    "five megabytes of levels": with_data(b=[["99.00000000", "5.00000000"]] * 180_000),
    "an unknown event": with_data(e="depthSnapshot"),
    "an event that is missing": with_data(e=None),
    "an id that is missing": with_data(u=None),
    "a side that is missing": with_data(a=None),
    "an id that is a text": with_data(u="x"),
    "an id that is a fraction": with_data(u=101.5),
    "an id below zero": with_data(U=-5),
    "an id beyond 2^53": with_data(u=2**53),
    "ids in the wrong order": with_data(U=103, u=102),
    "a side that is an object": with_data(b={"99.0": "5.0"}),
    "a level of one": with_data(b=[["99.0"]]),
    "a level that is an object": with_data(b=[{"p": "99.0", "q": "5.0"}]),
    "a level that is null": with_data(b=[None]),
    "a price of zero": with_bid("0.00000000", "5.0"),
    "a price below zero": with_bid("-99.0", "5.0"),
    "a price that is not a number": with_bid("NaN", "5.0"),
    "a price without end": with_bid("Infinity", "5.0"),
    "a price beyond float64": with_bid("1e999", "5.0"),
    "a price that is a word": with_bid("high", "5.0"),
    "a price that is empty": with_bid("", "5.0"),
    "a price that is null": with_bid(None, "5.0"),
    "a price that is true": with_bid(True, "5.0"),
    "a quantity below zero": with_bid("99.0", "-5.0"),
    "a quantity that is not a number": with_bid("99.0", "nan"),
    "a quantity without end": with_bid("99.0", "inf"),
    "a good level before a bad one": with_data(b=[["99.0", "5.0"], ["98.0", "-1"]]),
    "good bids before bad asks": with_data(a=[["101.0", "x"]]),
    "an ask price of zero": with_data(a=[["0", "5.0"]]),
    "an ask quantity below zero": with_data(a=[["101.0", "-5.0"]]),
    "a trade with a price of zero": trade_frame(p="0"),
    "a trade with another event": trade_frame(e="aggTrade"),
    "a trade whose maker is a text": trade_frame(m="maybe"),
    "a trade with an id below zero": trade_frame(t=-1),
    "a quote below zero": quote_frame(1, b="-1"),
    "a quote without a side": quote_frame(1).replace(b'"a"', b'"z"'),
    "a stream by another word": VALID.replace(b'"stream"', b'"streem"'),
    "a reply without a result": b'{"id":1}',
    "a reply without an id": b'{"result":null}',
    "a reply with a fraction for an id": b'{"result":null,"id":1.5}',
    "a reply with a text for an id": b'{"result":null,"id":"x"}',
    "an error that is a text": b'{"error":"no","id":1}',
    "an unknown bare event": b'{"e":"depthUpdate","E":1}',
}


def state_of(protocol: BookSet) -> Any:
    """All that a bad frame could have changed."""
    sync: Any = protocol._syncs["book", "BTCUSDT"]
    quote: Any = protocol._syncs["quote", "BTCUSDT"]
    return protocol.natives, quote.update_id, quote._top, *book_of(sync)


def book_of(sync: RangeSync | ReplaceSync) -> Any:
    if isinstance(sync, ReplaceSync):
        return sync.update_id, sync._top
    bids, asks = sync.book.bids, sync.book.asks
    return sync.update_id, bids.top, bids.levels(), asks.top, asks.levels(), sync._buffer and list(sync._buffer)


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_bad_frame_is_refused_and_changes_nothing(frame: bytes) -> None:
    protocol = live_protocol()
    before = state_of(protocol)

    with pytest.raises(WebSocketProtocolError):
        protocol.receive(frame)

    assert state_of(protocol) == before
    assert protocol.receive(VALID)[0].update_id == 101  # type: ignore[attr-defined]


@pytest.mark.parametrize("time", ["now", -1, 10**30, 1.5, True, [], 0, 5])
def test_a_book_of_an_implausible_time_is_a_book(time: Any) -> None:
    events = live_protocol().receive(with_data(E=time))

    assert [event.update_id for event in events if isinstance(event, BookUpdated)] == [101]


@pytest.mark.parametrize(
    "time", [1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_000_000, "1700000000000"]
)
def test_a_time_in_another_unit_is_the_same_time(time: int | str) -> None:
    (updated,) = (event for event in live_protocol().receive(with_data(E=time)) if isinstance(event, BookUpdated))

    assert updated.exchange_us == 1_700_000_000_000_000


def test_a_trade_in_microseconds_is_at_the_same_time() -> None:
    protocol = new_protocol(topics=frozenset({"trades"}))

    (trade,) = protocol.receive(trade_frame(T=1_700_000_000_123_456))

    assert trade.exchange_us == 1_700_000_000_123_456  # type: ignore[attr-defined]


@pytest.mark.parametrize("extra", [["1"], [[]], [None, {"x": 1}]], ids=str)
def test_further_elements_of_a_level_are_ignored_and_counted(extra: list[Any]) -> None:
    events = live_protocol().receive(with_data(b=[["99.0", "5.0", *extra]]))

    assert isinstance(events[0], BookUpdated)
    assert events[0].bids[0] == (99.0, 5.0)
    assert events[1:] == [Ignored("BTCUSDT", "level elements after price and quantity")]


def test_a_snapshot_whose_levels_have_further_elements_is_a_book() -> None:
    answer = {"lastUpdateId": 7, "bids": [["1", "2", []]], "asks": [["3", 4.5, "x", 1]], "new": 1}

    book = decode_answer(json.dumps(answer).encode())

    assert (book.last_id, list(book.bids), list(book.asks)) == (7, [(1.0, 2.0)], [(3.0, 4.5)])


def test_numbers_may_be_numbers_or_text() -> None:
    expected = live_protocol().receive(with_data(b=[["99.5", "5.25"]]))

    assert live_protocol().receive(with_data(b=[[99.5, 5.25]], U="101", u="101")) == expected


def test_a_frame_of_a_single_stream_connection_names_its_symbol_itself() -> None:
    single = json.dumps(json.loads(VALID)["data"]).encode()

    assert live_protocol().receive(single) == live_protocol().receive(VALID)


def test_single_and_combined_frames_make_one_book() -> None:
    protocol = live_protocol()

    protocol.receive(json.dumps(json.loads(VALID)["data"]).encode())

    assert [event.update_id for event in protocol.receive(diff_frame(102))] == [102]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("frame", "topic"), [(trade_frame(), "trades"), (quote_frame(1), "quote")], ids=["trade", "best prices"]
)
def test_single_frames_of_trades_and_best_prices_are_taken(frame: bytes, topic: Any) -> None:
    single = json.dumps(json.loads(frame)["data"]).encode()

    events = new_protocol(topics=frozenset({topic})).receive(single)

    assert events == new_protocol(topics=frozenset({topic})).receive(frame)
    assert len(events) == 1


def test_an_unused_single_frame_is_named() -> None:
    frame = json.dumps({"e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 1, "p": "1", "q": "1"}).encode()

    assert live_protocol().receive(frame) == [Ignored("BTCUSDT", "aggTrade")]


def test_a_single_frame_without_a_symbol_is_refused_with_the_reason() -> None:
    with pytest.raises(WebSocketProtocolError, match="does not name its symbol: record combined streams"):
        live_protocol().receive(b'{"lastUpdateId":1,"bids":[["1","1"]],"asks":[["2","1"]]}')


def test_the_largest_frame_accepted_is_one_megabyte() -> None:
    protocol = live_protocol()
    room = MAX_FRAME_BYTES - len(with_data(x=""))

    with pytest.raises(WebSocketProtocolError, match="bytes"):
        protocol.receive(with_data(x="y" * (room + 1)))
    assert protocol.receive(with_data(x="y" * room))[0].update_id == 101  # type: ignore[attr-defined]


BAD_PARTIAL_FRAMES = {
    "a quantity of zero": partial_frame(101, bids=[(99.0, 0.0)]),
    "an id that is missing": partial_frame(101).replace(b"lastUpdateId", b"lastUpdate"),
    "a diff in its place": partial_frame(101).replace(b'"bids"', b'"b"'),
    "a price of zero": partial_frame(101, bids=[(0.0, 1.0)]),
}


@pytest.mark.parametrize("frame", BAD_PARTIAL_FRAMES.values(), ids=BAD_PARTIAL_FRAMES.keys())
def test_a_bad_partial_frame_is_refused_and_changes_nothing(frame: bytes) -> None:
    protocol = new_protocol(mode="partial")
    protocol.receive(partial_frame(100))

    with pytest.raises(WebSocketProtocolError):
        protocol.receive(frame)

    assert protocol.update_id("BTCUSDT") == 100
    assert protocol.receive(partial_frame(101)) == [BookUnchanged("BTCUSDT", 101)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"code":-1121,"msg":"Invalid symbol."}',
        depth_answer(101)[:-30],
        depth_answer(101, bids=[(99.0, -1.0)]),
        depth_answer(101, bids=[(0.0, 1.0)]),
        depth_answer(101).replace(b'"99.00000000"', b'"NaN"'),
    ],
)
def test_a_bad_answer_is_refused_and_a_good_one_still_awaited(body: bytes) -> None:
    protocol = new_protocol()
    protocol.receive(diff_frame(100))

    with pytest.raises(WebSocketProtocolError):
        protocol.apply_snapshot("BTCUSDT", 100, body)

    assert protocol.update_id("BTCUSDT") is None
    assert protocol.apply_snapshot("BTCUSDT", 100, depth_answer(100))[0].update_id == 100  # type: ignore[attr-defined]


# Mutations of valid frames.

DIFF = diff_frame(101, 103, bids=[(99.0, 5.0), (98.5, 1.0)], asks=[(101.0, 0.0)])
PARTIAL = partial_frame(101, bids=[(99.0, 5.0), (98.5, 1.0)])
OTHERS = [
    quote_frame(101),
    trade_frame(),
    b'{"result":null,"id":1}',
    b'{"error":{"code":2,"msg":"no"},"id":1}',
    b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
]
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "drop"]), st.integers(0, 300), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutated(frame: bytes, edits: Sequence[tuple[str, int, int]]) -> bytes:
    body = bytearray(frame)
    for edit, position, value in edits:
        at = position % (len(body) + 1)
        match edit:
            case "set":
                body[at : at + 1] = bytes([value])
            case "insert":
                body[at:at] = bytes([value])
            case "drop":
                del body[at : at + 1 + value % 8]
            case "cut":
                del body[at:]
    return bytes(body)


def is_depth(frame: bytes) -> bool:
    """Whether an independent reading finds ids and levels in it that can be those of a book.

    What stands in fields without meaning for a book is not looked at.
    """
    try:
        data = json.loads(frame.decode(errors="replace"))["data"]
        first, last = (data["U"], data["u"]) if "U" in data else (data["lastUpdateId"],) * 2
        sides = [data[key] for key in ("b", "a", "bids", "asks") if key in data]
        levels = [(float(price), float(quantity)) for side in sides for price, quantity, *_ in side]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return (
        len(sides) == 2
        and 0 <= int(first) <= int(last)
        and all(0 < price < inf and 0 <= quantity < inf for price, quantity in levels)
    )


def receive_mutated(protocol: BookSet, frame: bytes) -> bool:
    """Whether it was accepted; if not, nothing has changed."""
    before = state_of(protocol)
    try:
        events = list(protocol.receive(frame))
    except WebSocketProtocolError:
        assert state_of(protocol) == before
        return False
    for event in events:
        if isinstance(event, BookUpdated):
            assert all(0 < number < inf for level in (*event.bids, *event.asks) for number in level)
    return True


@settings(max_examples=800)
@given(EDITS)
@example([("set", 12, 0xFF)])
def test_a_mutated_diff_is_refused_or_says_what_an_independent_reader_reads(edits: Any) -> None:
    protocol = live_protocol()
    before = state_of(protocol)
    frame = mutated(DIFF, edits)

    receive_mutated(protocol, frame)

    assert state_of(protocol) == before or is_depth(frame)


@settings(max_examples=500)
@given(EDITS)
def test_a_mutated_partial_frame_is_refused_or_says_what_an_independent_reader_reads(edits: Any) -> None:
    protocol = new_protocol(mode="partial")
    acknowledge(protocol)
    protocol.receive(partial_frame(100))
    before = state_of(protocol)
    frame = mutated(PARTIAL, edits)

    receive_mutated(protocol, frame)

    assert state_of(protocol) == before or is_depth(frame)


@settings(max_examples=500)
@given(frame=st.sampled_from(OTHERS), edits=EDITS)
def test_no_mutation_of_another_message_reaches_a_book(frame: bytes, edits: Any) -> None:
    protocol = live_protocol()
    before = book_of(protocol._syncs["book", "BTCUSDT"])  # type: ignore[arg-type]

    receive_mutated(protocol, mutated(frame, edits))

    assert book_of(protocol._syncs["book", "BTCUSDT"]) == before  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_error(frame: bytes) -> None:
    protocol = live_protocol()
    before = state_of(protocol)

    try:
        events = list(protocol.receive(frame))
    except WebSocketProtocolError:
        events = []

    assert state_of(protocol) == before
    assert not any(isinstance(event, BookUpdated | BookLost | TradeHappened) for event in events)
