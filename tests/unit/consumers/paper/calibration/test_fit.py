"""Calibration on made-up tapes whose fill probabilities are known, and of what a tape cannot decide."""

import os
from collections.abc import Iterable

import msgspec
import pytest

from bookbus.consumers.paper.calibration.fit import (
    Trial,
    TrialSettings,
    calibrate,
    start_trial,
    validate,
)
from bookbus.consumers.paper.calibration.table import CalibrationError, CalibrationTable, Method, parse_zones
from bookbus.consumers.paper.calibration.tape import Cancellation, CancellationWatch, Tape, share_ahead, survey
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.fills.queue import QueueFill
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from bookbus.schemas.trade import Trade
from tests.support.builders import book
from tests.support.tapes import (
    ENTRY_PRICE,
    EXIT_PRICE,
    NOTIONAL,
    START_US,
    ZONE,
    SyntheticTape,
    fill_probability,
    synthetic_book,
    synthetic_trade,
)

HORIZON = 4.0
ENTRY_RATE, EXIT_RATE = 0.8, 1.2
BUY_TRUTH, SELL_TRUTH = fill_probability(ENTRY_RATE, HORIZON), fill_probability(EXIT_RATE, HORIZON)

ZONES = parse_zones(ZONE)
METHOD = Method(
    horizon_seconds=HORIZON,
    latency_ms=0.0,
    order_notional=NOTIONAL,
    depth=200,
    fit_share=0.7,
    minimum_samples=20,
    seed=42,
)

COVERAGE_TAPES = int(os.environ.get("BOOKBUS_COVERAGE_TAPES", "12"))
"""200 take a minute or two and are held to the narrower bounds."""


def synthetic(seed: int, seconds: float = 1_000.0) -> Tape:
    return SyntheticTape(seed, seconds, ENTRY_RATE, EXIT_RATE).tape()


def tape_of(events: Iterable[TapeEvent], name: str = "synthetic") -> Tape:
    kept = list(events)
    return Tape(name, "0" * 64, lambda: kept)


@pytest.fixture(scope="module")
def fitted() -> CalibrationTable:
    return calibrate([synthetic(1)], ZONES, METHOD, "2024-08-09T00:00:00+00:00")


def test_intervals_hold_the_known_probability_as_often_as_they_say() -> None:
    covered = {"buy": 0, "sell": 0}
    for seed in range(COVERAGE_TAPES):
        (zone,) = calibrate([synthetic(seed)], ZONES, METHOD, "now").zones
        assert zone.buy_interval is not None
        assert zone.sell_interval is not None
        covered["buy"] += zone.buy_interval[0] <= BUY_TRUTH <= zone.buy_interval[1]
        covered["sell"] += zone.sell_interval[0] <= SELL_TRUTH <= zone.sell_interval[1]

    shares = {side: count / COVERAGE_TAPES for side, count in covered.items()}
    low, high = (0.90, 0.99) if COVERAGE_TAPES >= 100 else (0.80, 1.0)
    assert {side: share for side, share in shares.items() if not low <= share <= high} == {}


def test_a_table_says_what_it_is_of(fitted: CalibrationTable) -> None:
    # Of 119 whole slots of 8.4 s, 83 end within the first 70 % of 1,000 s and 35 begin after it.
    (zone,) = fitted.zones
    (tape,) = fitted.tapes

    assert (fitted.total_events, fitted.unmatched_events) == (83 + 35, 0)
    assert (zone.samples, zone.hold_out_buy_samples, zone.usable) == (83, 35, True)
    assert zone.sell_samples == round((zone.buy_fill_ratio or 0) * 83)
    assert fitted.default_buy_fill_ratio == zone.buy_fill_ratio
    assert (tape.sha256, tape.symbols, tape.first_us) == (synthetic(1).sha256, ("BTC-USDT",), START_US)
    assert fitted.cancellation_share is None
    assert fitted.hold_out_buy.samples == 35
    assert fitted.hold_out_buy.brier == fitted.hold_out_buy.base_brier


def test_the_same_tape_gives_the_same_table(fitted: CalibrationTable) -> None:
    again = calibrate([synthetic(1)], ZONES, METHOD, "2024-08-09T00:00:00+00:00")

    assert msgspec.json.encode(again) == msgspec.json.encode(fitted)


def test_a_zone_with_too_few_samples_is_unusable_and_has_no_ratio() -> None:
    (zone,) = calibrate([synthetic(1)], ZONES, msgspec.structs.replace(METHOD, minimum_samples=60), "now").zones

    assert (zone.usable, zone.buy_samples, zone.sell_fill_ratio, zone.sell_interval) == (False, 83, None, None)
    assert zone.buy_fill_ratio is not None
    assert zone.reason == f"{zone.sell_samples} exits, 60 are needed"


def test_two_tapes_count_together(fitted: CalibrationTable) -> None:
    (one,), (both,) = fitted.zones, calibrate([synthetic(1), synthetic(2)], ZONES, METHOD, "now").zones

    assert both.samples == 2 * one.samples
    width = [(zone.buy_interval or (0.0, 1.0)) for zone in (one, both)]
    assert width[1][1] - width[1][0] < width[0][1] - width[0][0]


def test_zones_that_differ_are_foretold_better_than_by_one_rate() -> None:
    # Behind the first level there is one that nothing reaches.
    zones = parse_zones(f"{ZONE},1.2-1.8/4.2-4.8")
    table = calibrate([synthetic(1)], zones, METHOD, "now")

    assert [zone.buy_fill_ratio == 0.0 for zone in table.zones] == [False, True]
    assert table.hold_out_buy.skill is not None
    assert table.hold_out_buy.skill > 0.2
    assert (table.hold_out_buy.log_loss or 9) < (table.hold_out_buy.base_log_loss or 0)


def test_a_table_is_scored_on_another_tape_and_never_on_its_own(fitted: CalibrationTable) -> None:
    moved = SyntheticTape(2, 1_000.0, ENTRY_RATE, EXIT_RATE, start_us=START_US + 86_400_000_000).tape()

    buy, sell = validate(fitted, [moved])

    assert buy.samples == 119
    assert buy.brier == pytest.approx(BUY_TRUTH * (1 - BUY_TRUTH), abs=0.03)
    assert sell.samples == pytest.approx(119 * BUY_TRUTH, abs=15)
    with pytest.raises(CalibrationError, match="fitted on synthetic-1: synthetic-1 cannot validate it"):
        validate(fitted, [synthetic(1)])
    with pytest.raises(CalibrationError, match="fitted on synthetic-1: synthetic-2 cannot validate it"):
        validate(fitted, [synthetic(2)])


def test_a_tape_without_books_or_trades_calibrates_nothing() -> None:
    with pytest.raises(CalibrationError, match="has no book"):
        survey(tape_of([]))
    with pytest.raises(CalibrationError, match="has no trades"):
        survey(tape_of([synthetic_book(START_US)]))


def test_the_tick_is_what_divides_every_price() -> None:
    events: list[TapeEvent] = [
        book(bids=((99.5, 1.0),), asks=((100.25, 1.0),)),
        Trade("binance", "BTC-USDT", "BTCUSDT", 1, 99.5, 1.0, "sell", 1, 1),
    ]

    assert survey(tape_of(events)).ticks == {"BTC-USDT": 0.25}


def trial(latency_us: int = 0) -> Trial:
    settings = TrialSettings(4_000_000, NOTIONAL, QueueFill(0.0, latency_us))
    begun = start_trial(synthetic_book(START_US), START_US, 0.5, 4.5, 1.0, settings)
    assert begun is not None
    return begun


def sell_at(at: float, price: float = ENTRY_PRICE) -> TapeEvent:
    return synthetic_trade(1, START_US + round(at * 1e6), "sell", price)


def buy_at(at: float, price: float = EXIT_PRICE) -> TapeEvent:
    return synthetic_trade(1, START_US + round(at * 1e6), "buy", price)


@pytest.mark.parametrize(
    ("events", "entered", "exited"),
    [
        pytest.param([], None, None, id="undecided"),
        pytest.param([sell_at(1), sell_at(2), sell_at(5)], False, None, id="the third trade comes after the horizon"),
        pytest.param([sell_at(1), sell_at(2), sell_at(4)], True, None, id="the third trade comes just in time"),
        pytest.param([*map(sell_at, (1, 2, 3)), *map(buy_at, (4, 5, 6))], True, True, id="there and back"),
        pytest.param([*map(sell_at, (1, 2, 3)), *map(buy_at, (1, 5, 6, 8))], True, False, id="the exit is too late"),
        pytest.param([sell_at(1, ENTRY_PRICE - 1), buy_at(2, EXIT_PRICE + 1)], True, True, id="prints go through"),
    ],
)
def test_a_trial_is_decided_by_what_printed_within_the_horizon(
    events: list[TapeEvent], entered: bool | None, exited: bool | None
) -> None:
    begun = trial()
    for event in sorted(events, key=lambda event: event.received_us):
        begun.receive(event)

    assert (begun.entered, begun.exited, begun.void) == (entered, exited, False)


def test_a_trial_does_not_outlive_its_horizon_where_nothing_happens() -> None:
    begun = trial()

    begun.expire(START_US + 4_000_000)
    assert begun.entered is None
    begun.expire(START_US + 4_000_001)
    assert begun.entered is False


def test_a_trial_is_void_where_the_book_is_lost() -> None:
    begun = trial()
    begun.receive(sell_at(1))
    begun.receive(book(state="suspect", received_us=START_US + 2_000_000))

    assert (begun.done, begun.void, begun.entered) == (True, True, None)


def test_latency_keeps_early_trades_from_filling() -> None:
    begun = trial(latency_us=2_500_000)
    for at in (1, 1.2, 1.4, 2):
        begun.receive(sell_at(at))

    assert begun.entered is None
    # They were ahead of us in the queue, and are gone when we join it.
    begun.receive(sell_at(3))
    assert begun.entered is True


def watch(*steps: tuple[float, float, float], level: float = 99.0) -> CancellationWatch:
    """Second, displayed quantity and quantity traded before that, at one bid."""
    seen = CancellationWatch()
    for at, displayed, traded in steps:
        at_us = round(at * 1e6)
        if traded:
            seen.trade(Trade("binance", "BTC-USDT", "BTCUSDT", 1, level, traded, "sell", at_us - 10, at_us - 10))
        bids: Levels = ((99.5, 1.0), *(((level, displayed),) if displayed else ()), (98.0, 1.0))
        seen.book(book(received_us=at_us, exchange_us=at_us, bids=bids, asks=((100.0, 1.0),)))
    # The last book is judged when the next one is there.
    at_us = round(steps[-1][0] * 1e6) + 1
    seen.book(book(received_us=at_us, exchange_us=at_us, bids=((99.5, 1.0),), asks=((100.0, 1.0),)))
    return seen


def test_a_quantity_that_comes_and_goes_is_one_order() -> None:
    seen = watch((1, 5.0, 0), (2, 7.5, 0), (6, 5.0, 0))

    assert seen.found == [Cancellation(6_000_000, 2.5, 4_000_000)]


def test_what_traded_is_no_cancellation() -> None:
    seen = watch((1, 5.0, 0), (2, 7.5, 0), (6, 5.0, 2.5))

    assert seen.found == []


def test_two_orders_of_one_size_cannot_be_told_apart() -> None:
    assert watch((1, 5.0, 0), (2, 6.0, 0), (3, 7.0, 0), (6, 6.0, 0)).found == []


def test_of_a_level_that_goes_all_that_was_seen_to_come_is_cancelled() -> None:
    seen = watch((1, 5.0, 0), (2, 6.0, 0), (3, 7.0, 0), (6, 0.0, 5.5))

    # The oldest 5 and half of the first order traded.
    assert seen.found == [Cancellation(6_000_000, 0.5, 4_000_000), Cancellation(6_000_000, 1.0, 3_000_000)]


def test_the_share_ahead_is_of_an_order_that_waits_anywhere_in_the_horizon() -> None:
    # Older than the horizon: always ahead. Half of it: ahead of those that came in the later half.
    found = [Cancellation(0, 1.0, 20), Cancellation(0, 3.0, 5)]

    assert share_ahead(found, 10) == pytest.approx((1.0 + 3.0 * 0.5) / 4)
    assert share_ahead([], 10) is None


def test_an_entry_before_a_loss_counts_and_the_exit_after_it_does_not() -> None:
    """Every 8.4 s the book is lost in the middle of the trial, when the order was filled but not yet sold."""

    def events() -> Iterable[TapeEvent]:
        for number in range(12):
            at = number * 8.4
            yield synthetic_book(START_US + round(at * 1e6))
            yield sell_at(at + 1, ENTRY_PRICE - 1)
            yield msgspec.structs.replace(synthetic_book(START_US + round((at + 2) * 1e6)), state="suspect")
            yield synthetic_book(START_US + round((at + 3) * 1e6))

    (zone,) = calibrate([tape_of(events())], ZONES, msgspec.structs.replace(METHOD, minimum_samples=2), "now").zones

    assert (zone.buy_samples, zone.buy_fill_ratio, zone.sell_samples) == (7, 1.0, 0)


def test_a_lost_book_is_compared_with_nothing() -> None:
    seen = watch((1, 5.0, 0), (2, 7.5, 0))
    before = len(seen.found)
    seen.book(book(state="suspect"))
    for at in (8, 9, 10):
        seen.book(book(received_us=at, exchange_us=at, bids=((99.5, 1.0), (98.0, 1.0)), asks=((100.0, 1.0),)))

    assert len(seen.found) == before


def test_a_slot_of_a_symbol_that_does_not_change_counts_like_any_other() -> None:
    """Only ETH moves; BTC's one book stays true."""

    def events() -> Iterable[TapeEvent]:
        yield synthetic_book(START_US)
        for number in range(200):
            at_us = START_US + number * 500_000
            other = msgspec.structs.replace(synthetic_book(at_us), symbol="ETH-USDT", native="ETHUSDT")
            yield other
        yield synthetic_trade(1, START_US + 99_600_000, "sell", 10_000.0)

    table = calibrate([tape_of(events())], ZONES, msgspec.structs.replace(METHOD, minimum_samples=2), "now")

    # 100 s are 11 whole slots; 8 of them are fitted on, for both symbols.
    assert table.zones[0].samples == 16
    assert table.zones[0].buy_fill_ratio == 0.0


def test_synthetic_books_never_cross() -> None:
    for event in SyntheticTape(3, seconds=20).events():
        if isinstance(event, OrderBookSnapshot):
            assert event.bids[0][0] < event.asks[0][0]
