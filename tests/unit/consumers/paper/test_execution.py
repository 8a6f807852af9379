"""The wrapper for passive orders: as often as the zone says, never more than the base, nothing where unmeasured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.execution import CalibratedFill, CalibratedMode, make_execution
from bookbus.consumers.paper.fills.model import (
    AdvancedFill,
    BookOrder,
    BookWalk,
    Fill,
    FillModel,
    FillReason,
    SimpleFill,
    no_fill,
)
from bookbus.consumers.paper.settings import RunSettings
from bookbus.schemas.snapshot import Side
from tests.support.builders import book
from tests.support.calibrations import table, zone
from tests.support.orders import order

# Bids 99.5 x 1.0 and 99.0 x 2.0, asks 100.5 x 1.5 and 101.0 x 2.5.
BOOK = book()


def calibrated(
    *, buy: float | None = 0.5, sell: float | None = 0.25, mode: CalibratedMode = "expected", seed: int = 42
) -> CalibratedFill:
    return CalibratedFill(SimpleFill(), table(zone(buy=buy, sell=sell)), mode, seed)


def waiting(side: Side = "buy", quantity: float = 1.0, entry_bps: float = 1.0, tp_bps: float = 5.0) -> BookOrder:
    return order(side, quantity, 99.0 if side == "buy" else 101.0, entry_bps=entry_bps, tp_bps=tp_bps)


def test_expected_scales_a_buy_by_the_buy_ratio_at_its_own_limit() -> None:
    # The base fills 1.0, of which 0.5 are expected; 99.0 against the ask of 100.5.
    assert calibrated().fill(waiting("buy", 1.0), BOOK) == Fill(
        0.5, 99.0, (99.0 - 100.5) / 100.5 * 1e4, FillReason.PARTIAL, "maker"
    )


def test_expected_scales_a_sell_by_the_sell_ratio() -> None:
    assert calibrated().fill(waiting("sell", 0.8), BOOK) == Fill(
        0.2, 101.0, (99.5 - 101.0) / 99.5 * 1e4, FillReason.PARTIAL, "maker"
    )


def test_expected_never_scales_more_than_the_base_fills() -> None:
    # The best ask holds 1.5 of the 6.0 asked for.
    assert calibrated().fill(waiting("buy", 6.0), BOOK).quantity == 0.75


def test_sampled_fills_as_often_as_the_zone_says() -> None:
    model = calibrated(buy=0.3, mode="sampled")

    fills = [model.fill(waiting(), BOOK) for _ in range(2_000)]

    assert {fill.quantity for fill in fills} == {0.0, 1.0}
    assert {fill.reason for fill in fills} == {FillReason.FILLED, FillReason.ZONE_MISS}
    assert sum(fill.quantity for fill in fills) / 2_000 == pytest.approx(0.3, abs=0.04)


def test_the_same_seed_draws_the_same_fills() -> None:
    runs = [calibrated(mode="sampled", seed=seed) for seed in (1, 1, 2)]

    first, again, other = ([model.fill(waiting(), BOOK) for _ in range(40)] for model in runs)

    assert first == again != other


def test_a_ratio_of_none_at_all_never_fills() -> None:
    model = calibrated(buy=0.0, mode="sampled")

    assert {model.fill(waiting(), BOOK) for _ in range(50)} == {no_fill(FillReason.ZONE_MISS)}
    assert calibrated(buy=0.0).fill(waiting(), BOOK) == no_fill(FillReason.ZONE_MISS)


def test_a_zone_with_too_few_samples_is_not_filled_with_a_default() -> None:
    model = calibrated(sell=None)

    assert model.fill(waiting("buy"), BOOK) == no_fill(FillReason.ZONE_UNUSABLE)
    assert model.fill(waiting("sell"), BOOK) == no_fill(FillReason.ZONE_UNUSABLE)


@pytest.mark.parametrize(("entry_bps", "tp_bps"), [(5.0, 5.0), (1.0, 10.0), (99.0, 99.0)])
def test_outside_of_every_zone_nothing_is_known(entry_bps: float, tp_bps: float) -> None:
    assert calibrated().fill(waiting(entry_bps=entry_bps, tp_bps=tp_bps), BOOK) == no_fill(FillReason.ZONE_UNKNOWN)


def test_only_orders_that_wait_are_calibrated() -> None:
    taking = order("buy", 1.0, 100.5, entry_bps=1.0, tp_bps=5.0)
    at_market = order("buy", 1.0, entry_bps=1.0, tp_bps=5.0)

    assert calibrated().fill(taking, BOOK) == no_fill(FillReason.WOULD_TAKE)
    assert calibrated().fill(at_market, BOOK) == no_fill(FillReason.NOT_PASSIVE)
    assert calibrated().fill(waiting(), book(state="suspect")) == no_fill(FillReason.BOOK_NOT_LIVE)


def test_an_order_without_an_aim_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="entry_bps and tp_bps"):
        calibrated().fill(order("buy", 1.0, 99.0), BOOK)


def test_what_is_calibrated_already_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="not over calibrated"):
        CalibratedFill(calibrated(), table())


def test_an_order_that_is_not_drawn_takes_nothing_from_the_base() -> None:
    base = BookWalk()
    CalibratedFill(base, table(zone(buy=0.0))).fill(waiting(quantity=4.0), BOOK)

    assert base.fill(order("buy", 4.0), BOOK).quantity == 4.0


@pytest.mark.parametrize("make", [SimpleFill, AdvancedFill, BookWalk])
@given(
    ratio=st.floats(0, 1),
    quantity=st.floats(0.001, 20),
    side=st.sampled_from(["buy", "sell"]),
    mode=st.sampled_from(["sampled", "expected"]),
    seed=st.integers(0, 100),
)
def test_calibrated_never_fills_more_than_its_base(
    make: type[FillModel], ratio: float, quantity: float, side: Side, mode: CalibratedMode, seed: int
) -> None:
    model = CalibratedFill(make(), table(zone(buy=ratio, sell=ratio)), mode, seed)

    fill = model.fill(waiting(side, quantity), BOOK)

    assert fill.quantity <= make().fill(order(side, quantity), BOOK).quantity <= quantity
    assert fill.price in (None, 99.0, 101.0)


def test_the_base_sees_a_level_refresh_between_its_fills() -> None:
    settings = RunSettings(fill_model="calibrated", calibrated_mode="expected")
    execution = make_execution(settings, table(zone(buy=1.0)), "exchange")
    model = execution.calibrated
    assert model is not None
    assert model.fill(waiting("buy", 1.5), BOOK).quantity == 1.5

    execution.observe(book(asks=((101.0, 2.5),)))

    assert model.fill(waiting("buy", 1.5), BOOK).price == 99.0
    assert model.fill(waiting("buy", 4.0), BOOK).quantity == 2.5
