"""Profit, hit ratio and the figures of an equity curve, with values computed by hand."""

import math
from fractions import Fraction

import pytest

from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.performance import EquityCurve, Ledger

ZERO = Fraction()


def curve(*values: float, interval: float = 10.0) -> EquityCurve:
    made = EquityCurve(interval)
    for number, value in enumerate(values):
        made.add(number * interval, {"USDT": value}, {"BTC-USDT": value * 2})
    return made


def test_profit_is_cash_and_position_after_fees() -> None:
    ledger = Ledger()

    ledger.apply("buy", exact(2.0), 100.0, exact(0.2), ZERO, "taker")
    ledger.apply("sell", exact(0.5), 110.0, exact(0.05), ZERO, "maker")

    assert (ledger.cash, ledger.position) == (exact(-145.25), exact(1.5))
    assert ledger.pnl(104.0) == exact(10.75)
    assert (ledger.fees, ledger.turnover, ledger.fills, ledger.maker_fills) == (exact(0.25), exact(255.0), 2, 1)


def test_fee_in_base_reduces_the_position_and_counts_at_its_price() -> None:
    ledger = Ledger()

    ledger.apply("buy", exact(2.0), 100.0, ZERO, exact(0.01), "taker")

    assert (ledger.cash, ledger.position, ledger.fees) == (exact(-200.0), exact(1.99), exact(1.0))


def test_hit_ratio_counts_what_closes_a_position_against_its_average_cost() -> None:
    ledger = Ledger()

    ledger.apply("buy", exact(1.0), 100.0, ZERO, ZERO, "maker")
    ledger.apply("buy", exact(1.0), 102.0, ZERO, ZERO, "maker")
    ledger.apply("sell", exact(0.5), 101.5, ZERO, ZERO, "maker")  # gains half a dollar a unit
    ledger.apply("sell", exact(0.5), 101.0, ZERO, ZERO, "maker")  # neither
    ledger.apply("sell", exact(2.0), 103.0, ZERO, ZERO, "maker")  # gains, and sells one of before
    ledger.apply("buy", exact(1.0), 104.0, ZERO, ZERO, "maker")  # which is bought back dearer

    assert (ledger.closes, ledger.wins, ledger.position) == (4, 2, ZERO)
    assert ledger.pnl(None) == ledger.pnl(50.0) == exact(0.25 + 2.0 - 1.0)


def test_position_without_a_price_is_worth_what_it_cost() -> None:
    ledger = Ledger()

    ledger.apply("buy", exact(2.0), 100.0, exact(0.5), ZERO, "taker")

    assert ledger.pnl(None) == 0


def test_curve_figures_are_of_the_changes_between_samples() -> None:
    figures = curve(0.0, 3.0, 1.0, 2.0, 0.5, 4.0).figures("USDT", [], Fraction(4))
    changes = [3.0, -2.0, 1.0, -1.5, 3.5]
    mean = sum(changes) / 5

    assert (figures.max_drawdown, figures.drawdown_seconds) == (2.5, 30.0)
    assert figures.sharpe == pytest.approx(mean / math.sqrt(sum((one - mean) ** 2 for one in changes) / 4))
    assert figures.sortino == pytest.approx(mean / math.sqrt((4 + 2.25) / 5))
    assert (figures.samples, figures.sample_seconds, figures.pnl) == (6, 10.0, 4.0)
    assert (figures.sharpe_annualised, figures.sortino_annualised) == (None, None)


def test_ratios_of_a_long_run_are_annualised_too() -> None:
    figures = curve(*(float(day % 3) for day in range(40)), interval=86_400.0).figures("USDT", [], ZERO)

    assert figures.sharpe is not None
    assert figures.sharpe_annualised == pytest.approx(figures.sharpe * math.sqrt(365))


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0), (1.0, 2.0, 3.0)])
def test_curve_without_deviation_has_no_sharpe_ratio(values: tuple[float, ...]) -> None:
    figures = curve(*values).figures("USDT", [], ZERO)

    assert (figures.sharpe, figures.sortino, figures.max_drawdown) == (None, None, 0.0)


def test_exposure_is_that_of_the_samples() -> None:
    figures = curve(0.0, 3.0, -5.0, 0.0).symbol_figures("BTC-USDT", "USDT", Ledger(), 100.0)

    assert (figures.mean_exposure, figures.largest_exposure, figures.time_in_market) == (-1.0, -10.0, 0.5)
    assert figures.hit_ratio is None
