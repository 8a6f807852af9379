"""Which fault is played on which message, how often, and what it sends instead."""

import json
from typing import Any

import pytest

from bookbus.feeders.simulator.binance.messages import book_text, depth_body, depth_update, wrapped
from bookbus.feeders.simulator.core.connection import encode_frame
from bookbus.feeders.simulator.core.faults import FRAME_FAULTS, KINDS, SILENT_FAULTS, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, LiveFeed
from bookbus.feeders.simulator.core.market import instruments
from bookbus.feeders.simulator.core.settings import SimulatorSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def feed(symbol: str = "BTCUSDT") -> LiveFeed:
    settings = SimulatorSettings(changes=8, levels=100, truth_flushes=100)
    return LiveFeed(instruments([symbol])[0], settings, truth_depth=20)


def next_text(of: LiveFeed) -> str:
    for _ in range(STEPS_PER_FLUSH):
        of.step()
    flush = of.flush()
    assert flush is not None
    body = depth_body(of.instrument, flush)
    return wrapped(f"{of.stream_prefix}depth@100ms", depth_update(of.instrument, flush, body, 1_700_000_000_000))


def texts(frames: list[bytes]) -> list[str]:
    """What a client reads, checked to be whole text frames."""
    read = []
    for frame in frames:
        size = frame[1] if frame[1] < 126 else int.from_bytes(frame[2:4] if frame[1] == 126 else frame[2:10], "big")
        head = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
        assert frame[0] == 0x81
        assert len(frame) == head + size
        read.append(frame[head:].decode())
    return read


class Line:
    """One symbol on one connection, and the faults that may be played on it."""

    def __init__(self, *faults: Fault) -> None:
        self.clock = Clock()
        self.board = FaultBoard(self.clock)
        for fault in faults:
            self.board.add(fault)
        self.feed = feed()

    def next(self, connection: int = 1) -> tuple[str, list[str]]:
        """A message, and what goes out instead."""
        text = next_text(self.feed)
        return text, texts(self.board.alter(self.feed, "depth@100ms", connection, text))


def data(text: str) -> Any:
    return json.loads(text)["data"]


def test_without_faults_a_message_goes_out_as_it_is() -> None:
    line = Line()

    text, sent = line.next()

    assert sent == [text]
    assert not line.board.alters_frames


def test_a_drop_takes_as_many_as_counted_then_no_more() -> None:
    line = Line(Fault(kind="drop", count=2))

    assert [len(line.next()[1]) for _ in range(4)] == [0, 0, 1, 1]
    assert line.board.played == {"drop": 2}


def test_each_connection_has_its_own_count_unless_one_is_named() -> None:
    everybody, one = Line(Fault(kind="drop")), Line(Fault(kind="drop", connection=2))

    assert [len(everybody.next(connection)[1]) for connection in (1, 2, 1, 2)] == [0, 0, 1, 1]
    assert [len(one.next(connection)[1]) for connection in (1, 2, 1, 2)] == [1, 0, 1, 1]


def test_a_fault_leaves_other_symbols_and_streams_alone() -> None:
    line = Line(Fault(kind="drop", symbols=("ETHUSDT",)), Fault(kind="drop", stream="trade"))

    text, sent = line.next()

    assert sent == [text]


def test_a_fault_with_seconds_lasts_so_long() -> None:
    line = Line(Fault(kind="drop", seconds=5))

    assert [len(line.next()[1]) for _ in range(3)] == [0, 0, 0]
    line.clock.now += 5
    assert len(line.next()[1]) == 1
    assert not line.board.alters_frames


def test_duplicate_sends_twice() -> None:
    text, sent = Line(Fault(kind="duplicate")).next()

    assert sent == [text, text]


def test_reorder_exchanges_two() -> None:
    line = Line(Fault(kind="reorder"))

    first, nothing = line.next()
    second, both = line.next()

    assert nothing == []
    assert both == [second, first]
    assert line.board.played == {"reorder": 1}


def test_replay_sends_an_old_one_again() -> None:
    line = Line(Fault(kind="replay_old"))

    rounds = [line.next() for _ in range(5)]

    assert [len(sent) for _, sent in rounds] == [1, 1, 1, 2, 1]
    assert rounds[3][1] == [rounds[3][0], rounds[0][0]]


def test_a_gap_at_bridging_time_waits_for_the_snapshot() -> None:
    line = Line(Fault(kind="gap_at_bridge"))

    before = [len(line.next()[1]) for _ in range(2)]
    line.board.snapshot_served("ETHUSDT")
    line.board.snapshot_served("BTCUSDT")
    after = [len(line.next()[1]) for _ in range(2)]

    assert (before, after) == ([1, 1], [0, 1])


def test_a_gap_at_bridging_time_drops_the_first_message_of_all() -> None:
    line = Line(Fault(kind="gap_at_bridge"))

    line.board.snapshot_served("BTCUSDT")

    assert [len(line.next()[1]) for _ in range(2)] == [0, 1]


def test_malformed_json_ends_in_the_middle() -> None:
    text, (sent,) = Line(Fault(kind="malformed_json")).next()

    assert text.startswith(sent)
    with pytest.raises(json.JSONDecodeError):
        json.loads(sent)


def test_binary_changes_the_frame_and_not_its_content() -> None:
    line = Line(Fault(kind="binary"))
    text = next_text(line.feed)

    assert line.board.alter(line.feed, "depth@100ms", 1, text) == [encode_frame(text.encode(), binary=True)]


def test_an_invalid_text_is_no_utf8() -> None:
    line = Line(Fault(kind="invalid_utf8"))
    (frame,) = line.board.alter(line.feed, "depth@100ms", 1, next_text(line.feed))

    with pytest.raises(UnicodeDecodeError):
        frame[4:].decode()


@pytest.mark.parametrize("kind", ["oversized", "unknown_type", "array_frame"])
def test_strange_messages_come_in_addition(kind: str) -> None:
    text, sent = Line(Fault(kind=kind)).next()

    assert sent[1:] == [text]
    assert isinstance(json.loads(sent[0]), list if kind == "array_frame" else dict)
    assert kind != "oversized" or len(sent[0]) > 5_000_000


def test_a_crossed_message_has_a_bid_above_the_best_ask() -> None:
    line = Line(Fault(kind="crossed"))
    _, (sent,) = line.next()

    best_ask = line.feed.instrument.price(line.feed.quote().ask[0])
    assert max(float(price) for price, _ in data(sent)["b"]) > best_ask


def test_an_empty_side_removes_every_bid() -> None:
    line = Line(Fault(kind="empty_side"))
    _, (sent,) = line.next()

    removed = {price for price, quantity in data(sent)["b"] if quantity == "0.00000000"}
    bids = line.feed.snapshot(5000, "flushed").bids
    assert {line.feed.instrument.price_text(ticks) for ticks, _ in bids} <= removed
    assert len(removed) == len(data(sent)["b"])


@pytest.mark.parametrize(
    ("kind", "position", "corrupted"),
    [
        ("nan_price", 0, "NaN"),
        ("negative_price", 0, "-1.00000000"),
        ("zero_price", 0, "0.00000000"),
        ("negative_quantity", 1, "-1.00000000"),
    ],
)
def test_a_corrupted_number_is_in_one_level(kind: str, position: int, corrupted: str) -> None:
    text, (sent,) = Line(Fault(kind=kind)).next()

    before = [*data(text)["b"], *data(text)["a"]]
    after = [*data(sent)["b"], *data(sent)["a"]]
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [level[position] for level in differing] == [corrupted]


def test_a_quote_is_corrupted_too() -> None:
    line = Line(Fault(kind="nan_price", stream="bookTicker"))
    quote = '{"u":1,"s":"BTCUSDT","b":"1.0","B":"2.0","a":"3.0","A":"4.0"}'

    (sent,) = texts(line.board.alter(line.feed, "bookTicker", 1, quote))

    assert json.loads(sent)["b"] == "NaN"


def test_ids_of_a_wrong_type_or_missing() -> None:
    text, (wrong,) = Line(Fault(kind="wrong_types")).next()
    _, (missing,) = Line(Fault(kind="missing_field")).next()

    assert data(wrong)["u"] == f"no. {data(text)['u']}"
    assert "u" not in data(missing)


def test_clock_skew_moves_the_time_alone() -> None:
    text, (sent,) = Line(Fault(kind="clock_skew", value=-2)).next()

    assert data(sent) == data(text) | {"E": data(text)["E"] - 2000}


def test_requests_are_counted_together_unless_symbols_are_named() -> None:
    line = Line(Fault(kind="rest_status", count=2), Fault(kind="rest_truncated", symbols=("A", "B")))

    matched = [line.board.match("rest_status", symbol=symbol) is not None for symbol in "ABC"]
    truncated = [line.board.match("rest_truncated", symbol=symbol) is not None for symbol in "ABCAB"]

    assert matched == [True, True, False]
    assert truncated == [True, True, False, False, False]


def test_snapshots_are_counted_for_each_symbol() -> None:
    line = Line(Fault(kind="stale_snapshot", count=2))

    matched = [line.board.match("stale_snapshot", symbol=symbol) is not None for symbol in "AABBAB"]

    assert matched == [True, True, True, True, False, False]


def test_the_time_left_of_a_lasting_fault_is_known() -> None:
    fault = Fault(kind="rest_status", value=429, seconds=7)
    line = Line(fault)

    line.clock.now += 3

    assert line.board.remaining(fault) == 4
    assert line.board.remaining(Fault(kind="rest_status")) is None


def test_cleared_faults_are_not_played() -> None:
    line = Line(Fault(kind="drop", count=5), Fault(kind="ack_lost"))

    line.board.clear()

    assert len(line.next()[1]) == 1
    assert line.board.match("ack_lost", connection=1) is None
    assert line.board.waiting() == []


def test_the_same_fault_asked_for_again_starts_afresh_and_does_not_pile_up() -> None:
    line = Line()
    for _ in range(3):
        line.board.add(Fault(kind="drop"))
        assert [len(line.next()[1]) for _ in range(2)] == [0, 1]

    assert len(line.board.waiting()) == 1


def test_a_corrupted_level_is_removed_or_the_reverse_and_nothing_else_changes() -> None:
    line = Line(Fault(kind="corrupt_level"))

    text, (sent,) = line.next()

    true, corrupted = data(text), data(sent)
    ((price, quantity), (_, wrong)), *more = [
        pair for pair in zip(true["b"], corrupted["b"], strict=True) if pair[0] != pair[1]
    ]
    assert more == []
    assert bool(float(quantity)) != bool(float(wrong))
    best = [line.feed.instrument.price_text(ticks) for ticks, _ in line.feed.snapshot(50, "flushed").bids]
    assert float(price) >= float(best[-1])
    assert true | {"b": []} == corrupted | {"b": []}
    assert line.board.played == {"corrupt_level": 1}


def test_a_level_cannot_be_corrupted_in_a_whole_book() -> None:
    line = Line(Fault(kind="corrupt_level", stream="depth"))
    text = wrapped("btcusdt@depth5@100ms", book_text(line.feed.instrument, line.feed.top(5)))

    assert texts(line.board.alter(line.feed, "depth5@100ms", 1, text)) == [text]
    assert line.board.played == {}


def test_every_kind_of_fault_is_known_once() -> None:
    assert set(FRAME_FAULTS | SILENT_FAULTS) <= set(KINDS)
    assert len(KINDS) == len(set(KINDS))


@pytest.mark.parametrize("fields", [{"kind": "rain"}, {"kind": "drop", "count": 0}, {"kind": "drop", "seconds": -1}])
def test_faults_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FaultError):
        Line(Fault(**fields))


def test_a_text_where_a_number_is_needed_is_refused() -> None:
    with pytest.raises(FaultError, match="number"):
        Fault(kind="close", value="soon").number(1000)
