"""Runs through recordings: the recording's clock, waiting orders, the same events for the same inputs."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bookbus.consumers.captures import TapeFrame, read_capture
from bookbus.consumers.commands.run import combinations
from bookbus.consumers.paper.calibration.table import (
    CalibrationError,
    CalibrationTable,
    Method,
    Score,
    TapeInfo,
    Zone,
    save_table,
)
from bookbus.consumers.paper.calibration.tape import capture_info, tape_hash
from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.runner import CaptureRun, Stop, run_captures
from bookbus.consumers.paper.session import TradingSession, calibration_of
from bookbus.consumers.paper.settings import EntrySettings, RunSettings
from bookbus.schemas.capture import CaptureError, CaptureFrame, encode_frame
from bookbus.schemas.snapshot import OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade
from tests.support.builders import book
from tests.support.captures import capture_path

BEGAN = 1_700_000_000.0
SETTINGS = RunSettings(
    source="capture:tape",
    duration=20.0,
    trade_interval=10.0,
    order_quantity=0.5,
    fees={"binance": 10.0},
    sl_bps=500.0,
    entry=EntrySettings(minimum=0.0, maximum=0.0, tp_bps=100.0),
)
QUEUE = replace(SETTINGS, fill_model="queue")
BINANCE = ("binance", "BTC-USDT")
UPBIT = ("upbit", "BTC-KRW")


def books(at: float, bid: float = 100.0, ask: float = 101.0, quantity: float = 1.0) -> TapeFrame:
    snapshot = book(
        received_us=round((BEGAN + at) * 1e6),
        update_id=round(at * 1000) + 1,
        bids=((bid, quantity), (bid - 1, quantity)),
        asks=((ask, quantity), (ask + 1, quantity)),
    )
    return TapeFrame(BEGAN + at, (snapshot,), "binance")


def trade(at: float, price: float, quantity: float, aggressor: Side) -> TapeFrame:
    at_us = round((BEGAN + at) * 1e6)
    one = Trade("binance", "BTC-USDT", "BTCUSDT", round(at * 1000), price, quantity, aggressor, at_us, at_us)
    return TapeFrame(BEGAN + at, (one,), "binance")


def nothing(at: float) -> TapeFrame:
    return TapeFrame(BEGAN + at, (), "binance")


def run(directory: Path, settings: RunSettings, *frames: TapeFrame) -> tuple[Kpi, list[dict[str, Any]]]:
    tape = CaptureRun(settings, "binance", directory, Stop(), calibration_of(settings))
    try:
        for frame in frames:
            if not tape.receive(frame):
                break
    except Exception as error:
        tape.fail(str(error))
        raise
    kpi = tape.finish("end_of_recording")
    return kpi, [msgspec.json.decode(line) for line in Path(kpi.fill_events_path).read_bytes().splitlines()]


def test_decisions_and_exits_fall_on_the_recordings_own_time(tmp_path: Path) -> None:
    quiet = [nothing(second) for second in range(1, 25)]

    kpi, fills = run(tmp_path, SETTINGS, books(0.25), *quiet)

    assert [(fill["side"], fill["timestamp"][17:23]) for fill in fills] == [
        ("buy", "20.250"),
        ("sell", "30.250"),
        ("buy", "30.250"),
        ("sell", "40.250"),
    ]
    assert (kpi.end_reason, kpi.actual_duration_seconds) == ("duration", 20.0)


def test_a_hole_in_the_recording_is_a_stale_book(tmp_path: Path) -> None:
    kpi, _ = run(tmp_path, replace(SETTINGS, trade_interval=4.0), books(0.0), nothing(1.0), nothing(19.0))

    # Last heard at 1 s, so good until 6 s: decided on at 0 and 4, not at 8, 12 and 16.
    assert (kpi.entry_trades, kpi.skipped_decisions) == (2, {"stale": 3})
    assert kpi.blocked_exits == {"stale": 1}


def test_a_waiting_entry_is_filled_by_trades_after_what_was_ahead(tmp_path: Path) -> None:
    frames = [
        books(0.0),
        trade(1.0, 100.0, 0.9, "sell"),  # 0.1 of the 1.0 ahead of us is left
        trade(2.0, 100.0, 0.3, "sell"),
        trade(3.0, 100.0, 9.0, "sell"),
        books(4.0),
    ]

    kpi, fills = run(tmp_path, QUEUE, *frames)

    entry = fills[0]
    assert (entry["filled_quantity"], entry["effective_price"], entry["liquidity"]) == (0.5, 100.0, "maker")
    assert (entry["latency_ms"], entry["fill_model"], entry["fee"]) == (3000.0, "queue", pytest.approx(0.05))
    # The recording ends before the profit is taken: sold at the bid, by the model of orders that take.
    assert (fills[2]["exit_reason"], fills[2]["fill_model"], fills[2]["liquidity"]) == ("end", "book_walk", "taker")
    assert kpi.total_pnl == pytest.approx(-kpi.fees)


def test_a_waiting_exit_takes_its_profit_from_a_print_through_its_price(tmp_path: Path) -> None:
    frames = [books(0.0), trade(1.0, 99.0, 2.0, "sell"), books(1.5), trade(3.0, 101.5, 2.0, "buy"), books(4.0)]

    kpi, fills = run(tmp_path, QUEUE, *frames)

    assert [(fill["side"], fill["effective_price"], fill["liquidity"]) for fill in fills] == [
        ("buy", 100.0, "maker"),
        ("sell", 101.0, "maker"),
    ]
    assert fills[1]["exit_reason"] == "take_profit"
    assert kpi.total_pnl == pytest.approx(0.5 - kpi.fees)


def test_an_entry_that_nobody_fills_is_an_event_of_nothing(tmp_path: Path) -> None:
    kpi, fills = run(tmp_path, QUEUE, *(books(second) for second in range(12)))

    assert (fills[0]["filled_quantity"], fills[0]["effective_price"], fills[0]["fill_reason"]) == (
        0,
        None,
        "not_reached",
    )
    assert (kpi.closed_trades, kpi.total_pnl, kpi.unfilled_orders["not_reached"]) == (0, 0.0, len(fills))


def test_a_stop_takes_the_waiting_exit_back_and_sells_at_the_bid(tmp_path: Path) -> None:
    frames = [
        books(0.0),
        trade(1.0, 99.0, 2.0, "sell"),
        books(1.5),
        books(3.0, bid=94.0, ask=95.0),
        books(3.2, bid=94.0, ask=95.0),
    ]

    _, fills = run(tmp_path, QUEUE, *frames)

    assert [(fill["filled_quantity"], fill["exit_reason"], fill["effective_price"]) for fill in fills] == [
        (0.5, None, 100.0),
        (0.0, "take_profit", None),
        (0.5, "stop_loss", 94.0),
    ]


def test_a_run_that_never_has_a_book_says_so(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="never has a live book of BTC-USDT"):
        run(tmp_path, SETTINGS, nothing(0.0))


def zone(zone_id: str, low: float, high: float, ratio: float | None) -> Zone:
    interval = None if ratio is None else (max(ratio - 0.1, 0.0), min(ratio + 0.1, 1.0))
    return Zone(
        zone_id=zone_id,
        entry_min=low,
        entry_max=high,
        tp_min=0.0,
        tp_max=200.0,
        buy_fill_ratio=ratio,
        sell_fill_ratio=ratio,
        samples=100,
        buy_samples=100,
        sell_samples=100,
        buy_interval=interval,
        sell_interval=interval,
        usable=ratio is not None,
        reason="" if ratio is not None else "too few samples",
        hold_out_buy_samples=0,
        hold_out_buy_ratio=None,
        hold_out_sell_samples=0,
        hold_out_sell_ratio=None,
    )


def table_file(
    directory: Path, *zones: Zone, sha256: str = "0" * 64, at: float = 0.0, market: tuple[str, str] = BINANCE
) -> str:
    score = Score(samples=0, brier=None, base_brier=None, skill=None, log_loss=None, base_log_loss=None)
    tape = TapeInfo(
        name="tape",
        sha256=sha256,
        exchange=market[0],
        symbols=(market[1],),
        first_us=round(at * 1e6),
        last_us=round(at * 1e6),
    )
    method = Method(
        horizon_seconds=10.0, latency_ms=50.0, order_notional=100.0, depth=20, fit_share=0.7, minimum_samples=30, seed=1
    )
    table = CalibrationTable(
        created_at="2025-01-01T00:00:00+00:00",
        source="tape",
        total_events=100,
        unmatched_events=0,
        zones=zones,
        default_buy_fill_ratio=None,
        default_sell_fill_ratio=None,
        cancellation_share=0.5,
        cancellation_samples=0,
        hold_out_buy=score,
        hold_out_sell=score,
        tapes=(tape,),
        method=method,
    )
    directory.mkdir(exist_ok=True)
    path = directory / "table.json"
    save_table(table, path)
    return str(path)


def test_advice_is_on_every_decision_and_scored_at_the_end(tmp_path: Path) -> None:
    path = table_file(tmp_path, zone("near", 0, 5, 0.8))

    kpi, fills = run(
        tmp_path,
        replace(SETTINGS, calibration_path=path, fillmodel_mode="advisory"),
        books(0.0),
        *map(nothing, range(21)),
    )

    assert {fill["zone_id"] for fill in fills} == {"near"}
    assert fills[0]["calibration_version"] == kpi.calibration_version
    assert kpi.advice is not None
    assert kpi.advice.entries == 2
    assert kpi.advice.brier == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("ratio", "low", "reason"), [(0.2, 0, "zone_refused"), (None, 0, "zone_unusable"), (0.9, 5, "zone_unknown")]
)
def test_strict_mode_trades_no_zone_that_does_not_promise_enough(
    tmp_path: Path, ratio: float | None, low: float, reason: str
) -> None:
    path = table_file(tmp_path, zone("Z", low, low + 5, ratio))

    kpi, fills = run(
        tmp_path,
        replace(SETTINGS, calibration_path=path, fillmodel_mode="strict"),
        books(0.0),
        *map(nothing, range(21)),
    )

    assert (kpi.skipped_decisions, fills) == ({reason: 2}, [])


def test_a_calibrated_fill_comes_true_only_when_the_market_has_come(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS,
        fill_model="calibrated",
        calibration_path=table_file(tmp_path, zone("all", 0, 200, 1.0)),
        entry=EntrySettings(minimum=100.0, maximum=100.0, tp_bps=100.0),
    )

    _, stayed = run(tmp_path, settings, *(books(second) for second in range(12)))
    _, came = run(tmp_path, settings, books(0.0), books(2.0, bid=99.0, ask=99.5), books(3.0, bid=99.5, ask=100.0))

    assert (stayed[0]["filled_quantity"], stayed[0]["fill_reason"]) == (0.0, "not_reached")
    assert (came[0]["filled_quantity"], came[0]["effective_price"], came[0]["latency_ms"]) == (0.5, 99.0, 2000.0)
    # One percent above 99 is 99.99, on a tick 100: the best ask has come there.
    assert (came[1]["exit_reason"], came[1]["effective_price"]) == ("take_profit", 100.0)


def test_a_waiting_order_stands_on_a_tick_that_the_prices_show(tmp_path: Path) -> None:
    settings = replace(QUEUE, entry=EntrySettings(minimum=30.0, maximum=30.0))

    _, fills = run(tmp_path, settings, books(0.0, bid=100.0, ask=100.25), *(books(second) for second in range(1, 12)))

    # 30 bps behind 100 is 99.7, between two ticks of 0.25.
    assert fills[0]["target_price"] == 99.5


def recording(path: Path) -> Path:
    """Whole books every half second, as Upbit sends them."""
    lines = []
    for number in range(60):
        message = {
            "type": "orderbook",
            "code": "KRW-BTC",
            "timestamp": 1_700_000_000_000 + number * 500,
            "total_ask_size": 2.0,
            "total_bid_size": 2.0,
            "orderbook_units": [
                {
                    "ask_price": 50_100_000.0 + number,
                    "bid_price": 50_000_000.0 + number,
                    "ask_size": 1.0,
                    "bid_size": 1.0,
                }
            ],
            "stream_type": "REALTIME",
        }
        frame = CaptureFrame(BEGAN + number / 2, "upbit", "ws", "", msgspec.json.encode(message).decode())
        lines.append(encode_frame(frame))
    path.write_bytes(b"".join(lines))
    return path


def through(path: Path, directory: Path, *runs: RunSettings) -> list[Kpi]:
    return run_captures(runs, path, directory, Stop(), lambda _: None)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    path, settings = recording(tmp_path / "tape.jsonl"), replace(SETTINGS, duration=None, order_quantity=0.01, fees={})

    (first,), (second,) = (through(path, tmp_path / name, settings) for name in ("a", "b"))

    assert first.fill_events_count == 6
    assert Path(first.fill_events_path).read_bytes() == Path(second.fill_events_path).read_bytes()
    assert (first.session_id, first.fill_events_sha256) == (second.session_id, second.fill_events_sha256)


def test_a_grid_runs_every_combination_as_it_would_run_alone(tmp_path: Path) -> None:
    path, settings = recording(tmp_path / "tape.jsonl"), replace(SETTINGS, duration=None, order_quantity=0.01, fees={})
    runs = combinations(settings, "trade-interval=5,10 fill-model=simple,book_walk")

    together = through(path, tmp_path / "grid", *runs.values())

    assert list(runs)[1] == "trade-interval=5 fill-model=book_walk"
    assert len({kpi.session_id for kpi in together}) == 4
    (alone,) = through(path, tmp_path / "alone", list(runs.values())[1])
    assert together[1].fill_events_sha256 == alone.fill_events_sha256


@pytest.mark.parametrize("text", ["tp-bps", "nonsense=1", "tp-bps=x", "entry-bps-mode=nonsense", "tp-bps=1,1.0"])
def test_a_grid_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--grid"):
        combinations(SETTINGS, text)


def test_a_table_is_refused_on_the_recording_it_comes_from(tmp_path: Path) -> None:
    path = recording(tmp_path / "tape.jsonl")
    table = table_file(tmp_path, zone("Z", 0, 5, 0.5), sha256=tape_hash(path))

    with pytest.raises(CalibrationError, match=r"fitted on tape: tape\.jsonl cannot validate it"):
        through(path, tmp_path / "out", replace(SETTINGS, fees={}, calibration_path=table))

    assert not list(tmp_path.glob("out/*"))


def test_a_table_is_refused_on_another_recording_of_the_same_market_and_time(tmp_path: Path) -> None:
    path = recording(tmp_path / "tape.jsonl")
    near = zone("Z", 0, 5, 0.5)
    settings = replace(
        SETTINGS,
        fees={},
        order_quantity=0.01,
        calibration_path=table_file(tmp_path, near, at=BEGAN + 29.5, market=UPBIT),
    )
    later = replace(settings, calibration_path=table_file(tmp_path / "later", near, at=BEGAN + 30.0, market=UPBIT))

    with pytest.raises(CalibrationError, match="cannot validate"):
        through(path, tmp_path / "out", settings)

    assert through(path, tmp_path / "out", later)[0].calibration_misfits == ["its orders wait, those of book_walk take"]


def test_one_run_of_a_grid_with_the_recordings_own_table_refuses_them_all(tmp_path: Path) -> None:
    path = recording(tmp_path / "tape.jsonl")
    own = table_file(tmp_path, zone("Z", 0, 5, 0.5), sha256=tape_hash(path))
    other = table_file(tmp_path / "other", zone("Z", 0, 5, 0.5))
    runs = combinations(replace(SETTINGS, fees={}), f"calibration-path={other},{own}")

    with pytest.raises(CalibrationError, match="cannot validate"):
        through(path, tmp_path / "out", *runs.values())

    assert not list(tmp_path.glob("out/*"))


def test_a_recording_is_told_by_its_content_and_its_time(tmp_path: Path) -> None:
    path = recording(tmp_path / "tape.jsonl")
    path.write_bytes(path.read_bytes() + b'{"t": cut off')

    info = capture_info(path, "upbit", ("BTC-KRW",))

    assert (info.first_us, info.last_us) == (round(BEGAN * 1e6), round((BEGAN + 29.5) * 1e6))
    assert info.sha256 == tape_hash(path)


def test_the_same_table_elsewhere_gives_the_same_bytes_and_another_table_another_session(tmp_path: Path) -> None:
    path = recording(tmp_path / "tape.jsonl")
    places = [
        table_file(tmp_path / name, zone("Z", 0, 5, ratio)) for name, ratio in (("a", 0.5), ("b", 0.5), ("c", 0.6))
    ]
    settings = replace(SETTINGS, duration=None, order_quantity=0.01, fees={})

    first, moved, other = (
        through(path, tmp_path / "out", replace(settings, calibration_path=place))[0] for place in places
    )

    assert first.fill_events_sha256 == moved.fill_events_sha256
    assert first.session_id == moved.session_id != other.session_id


ORDERS = ("timestamp", "side", "order_quantity", "filled_quantity", "effective_price", "exit_reason", "fill_reason")


@pytest.mark.parametrize("model", ["simple", "advanced", "book_walk", "queue", "calibrated"])
def test_advice_changes_no_order(tmp_path: Path, model: str) -> None:
    frames = [
        books(0.0),
        trade(1.0, 100.0, 0.4, "sell"),
        books(2.0, quantity=0.2),  # 0.4 was cancelled, half of it ahead of us as the table says
        trade(3.0, 100.0, 0.6, "sell"),
        books(4.0, bid=99.0, ask=100.0),
        trade(5.0, 101.0, 2.0, "buy"),
        books(6.0, bid=101.0, ask=102.0),
        *(books(second) for second in range(7, 25)),
    ]
    settings = replace(SETTINGS, fill_model=model, calibration_path=table_file(tmp_path, zone("Z", 0, 5, 0.8)))

    silent, silent_fills = run(tmp_path / "none", settings, *frames)
    advised, advised_fills = run(tmp_path / "advisory", replace(settings, fillmodel_mode="advisory"), *frames)

    orders = [[[fill[name] for name in ORDERS] for fill in fills] for fills in (silent_fills, advised_fills)]
    assert orders[0] == orders[1]
    assert len(orders[0]) >= 2
    assert (silent.total_pnl, silent.advice) == (advised.total_pnl, None)
    assert advised.advice is not None
    # A table is not scored by fills that it drew itself.
    assert advised.advice.entries == (0 if model == "calibrated" else advised.entry_trades)


def test_a_table_moves_the_queue_also_where_nobody_asks_for_advice(tmp_path: Path) -> None:
    # One stands ahead of us, one comes behind, then 0.6 of the two are cancelled.
    waiting = [books(0.0), books(1.0, quantity=2.0), books(2.0, quantity=1.4)]
    frames = [*waiting, trade(3.0, 100.0, 1.0, "sell"), *(books(second) for second in range(4, 13))]
    with_table = replace(QUEUE, calibration_path=table_file(tmp_path, zone("Z", 0, 5, 0.8)))

    without, waited = run(tmp_path / "without", QUEUE, *frames)
    kpi, filled = run(tmp_path / "with", with_table, *frames)

    assert (without.queue_cancellation_share, waited[0]["filled_quantity"]) == (0.0, 0.0)
    # Half of what was cancelled stood ahead, as the table says: 0.3 of the trade is left for us.
    assert (kpi.queue_cancellation_share, filled[0]["filled_quantity"]) == (0.5, pytest.approx(0.3))


def test_an_entry_filled_in_part_is_none_that_the_table_counts(tmp_path: Path) -> None:
    path = table_file(tmp_path, zone("Z", 0, 5, 0.8))
    settings = replace(QUEUE, duration=12.0, calibration_path=path, fillmodel_mode="advisory")
    frames = [books(0.0), trade(1.0, 100.0, 1.2, "sell"), *(books(second) for second in range(2, 14))]

    kpi, fills = run(tmp_path, settings, *frames)

    assert fills[0]["filled_quantity"] == pytest.approx(0.2)
    assert kpi.advice is not None
    assert (kpi.advice.entries, kpi.advice.filled) == (1, 0.0)


def test_the_mid_at_a_fill_is_not_known_while_the_book_is_not(tmp_path: Path) -> None:
    before = books(1.0)
    assert isinstance(before.events[0], OrderBookSnapshot)
    lost = before._replace(events=(replace(before.events[0], state="suspect"),))

    _, known = run(tmp_path / "known", QUEUE, books(0.0), books(1.0), trade(2.0, 100.0, 9.0, "sell"))
    _, unknown = run(tmp_path / "unknown", QUEUE, books(0.0), lost, trade(2.0, 100.0, 9.0, "sell"))

    assert (known[0]["filled_quantity"], known[0]["mid_at_fill"]) == (0.5, 100.5)
    assert (unknown[0]["filled_quantity"], unknown[0]["mid_at_fill"]) == (0.5, None)


@pytest.mark.parametrize("duration", [10.0, None])
def test_orders_that_wait_on_a_recording_without_trades_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, duration: float | None
) -> None:
    seconds = [books(second) for second in range(12)]

    run(tmp_path / "with", replace(QUEUE, duration=duration), *seconds[:5], trade(5.0, 90.0, 1.0, "buy"), *seconds[6:])
    assert not caplog.records
    run(tmp_path / "without", replace(QUEUE, duration=duration), *seconds)

    assert [record.getMessage()[:33] for record in caplog.records] == ["the recording has no trades of th"]


def horizon_of(seconds: float, **changes: Any) -> RunSettings:
    return replace(QUEUE, max_hold=seconds, **changes)


@pytest.mark.parametrize("changes", [{"fillmodel_mode": "strict"}, {"fill_model": "calibrated"}])
def test_a_table_decides_on_no_order_that_waits_longer_than_its_own_did(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    path = table_file(tmp_path, zone("Z", 0, 5, 0.8))

    with pytest.raises(CalibrationError, match="wait 10 s, and these would wait 20 s: use --max-hold 10, or a table"):
        run(tmp_path, horizon_of(20.0, calibration_path=path, **changes), books(0.0))

    run(tmp_path, horizon_of(10.0, calibration_path=path, **changes), books(0.0))


@pytest.mark.parametrize(
    ("settings", "market", "mismatch"),
    [
        (horizon_of(10.0), BINANCE, []),
        (horizon_of(20.0), BINANCE, ["its orders wait 10 s, these 20 s"]),
        (replace(SETTINGS, max_hold=20.0), BINANCE, ["its orders wait, those of book_walk take"]),
        (horizon_of(10.0), UPBIT, ["no tape of it holds BTC-USDT on binance"]),
        (horizon_of(10.0), ("binance", "ETH-USDT"), ["no tape of it holds BTC-USDT on binance"]),
    ],
)
def test_a_table_that_does_not_speak_for_a_run_is_told_once_and_on_record(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: RunSettings,
    market: tuple[str, str],
    mismatch: list[str],
) -> None:
    path = table_file(tmp_path, zone("Z", 0, 5, 0.8), market=market)

    kpi, _ = run(tmp_path, replace(settings, calibration_path=path), books(0.0), books(1.0))

    warned = [record.getMessage() for record in caplog.records if "calibration" in record.getMessage()]
    assert kpi.calibration_misfits == mismatch
    assert warned == [f"the calibration does not apply to this run: {one}" for one in mismatch]


@pytest.mark.parametrize("model", ["book_walk", "queue"])
def test_a_real_recording_gives_the_same_hash_twice(tmp_path: Path, model: str) -> None:
    path = capture_path("binance_20210405_10sym")
    symbol = next(event.symbol for frame in read_capture(path) for event in frame.events)
    settings = replace(SETTINGS, symbols=(symbol,), order_quantity=0.01, duration=None, fill_model=model, cash=1e9)

    hashes = {through(path, tmp_path / name, settings)[0].fill_events_sha256 for name in ("a", "b")}

    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("interval", "decisions"),
    [(0.03, 667), (0.1, 200), (0.7, 29), (1.1, 19), (2.3, 9), (3.3, 7), (1 / 3, 61), (10.0, 2)],
)
def test_every_interval_makes_each_decision_once(tmp_path: Path, interval: float, decisions: int) -> None:
    frames = [books(0.1), *(nothing(0.1 + tenth / 10) for tenth in range(1, 201))]

    kpi, _ = run(tmp_path, replace(SETTINGS, trade_interval=interval, max_hold=0.5), *frames)

    assert (kpi.decisions, kpi.end_reason, kpi.skipped_decisions.get("runner_late", 0)) == (decisions, "duration", 0)


@pytest.mark.parametrize("interval", [0.7, 1.1, 3.3])
def test_a_trade_of_one_interval_is_over_at_the_next_decision(tmp_path: Path, interval: float) -> None:
    frames = [books(0.1), *(nothing(0.1 + tenth / 10) for tenth in range(1, 50))]
    frames += [books(5.0 + tenth / 10) for tenth in range(1, 200)]

    kpi, _ = run(tmp_path, replace(SETTINGS, trade_interval=interval), *frames)

    assert kpi.entry_trades == kpi.decisions > 5


def test_a_stop_ends_a_run_between_two_frames(tmp_path: Path) -> None:
    stop = Stop()
    tape = CaptureRun(replace(SETTINGS, duration=None, trade_interval=1.0), "binance", tmp_path, stop)
    assert (tape.receive(books(0.0)), stop.polled) == (True, True)

    stop.ask("terminated")

    assert tape.receive(nothing(86_400.0))
    kpi = tape.finish(stop.reason)
    assert (kpi.end_reason, kpi.decisions, kpi.actual_duration_seconds) == ("terminated", 1, 0.0)


def test_a_recording_whose_time_jumps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="time jumps by 1698300000000000 s at 2023-11-14"):
        run(tmp_path, SETTINGS, books(0.0), TapeFrame(BEGAN + 1_698_300_000_000_000.0, (), "binance"))


def test_a_step_that_does_not_advance_the_run_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TradingSession, "next_due", BEGAN + 1.0)

    with pytest.raises(RuntimeError, match="does not advance the run"):
        run(tmp_path, SETTINGS, books(0.0), nothing(2.0))
