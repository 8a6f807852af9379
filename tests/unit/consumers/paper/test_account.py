"""Accounts: what was bought can be sold, and profit is cash plus what is held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.account import Portfolio, RiskGuard, RiskLimits

SYMBOL = "BTC-USDT"

quantities = st.floats(1e-8, 1e3)
prices = st.floats(1e-4, 1e6)


@st.composite
def fills(draw: st.DrawFn) -> list[tuple[str, str, float, float, float]]:
    count = draw(st.integers(1, 20))
    side, symbol = st.sampled_from(["buy", "sell"]), st.sampled_from([SYMBOL, "ETH-USDT"])
    return [(draw(side), draw(symbol), draw(quantities), draw(prices), draw(st.floats(0, 10))) for _ in range(count)]


@given(fills())
def test_profit_is_cash_gained_plus_what_is_held_at_the_mark(
    orders: list[tuple[str, str, float, float, float]],
) -> None:
    portfolio, marks = Portfolio({"binance": 1e6}), {SYMBOL: 123.5, "ETH-USDT": 7.25}
    for side, symbol, quantity, price, fee in orders:
        if side == "buy":
            portfolio.apply_fill("buy", "binance", symbol, quantity, price, fee)
        elif not portfolio.reject_reason("sell", "binance", symbol, quantity, 0.0):
            portfolio.apply_fill("sell", "binance", symbol, quantity, price, fee)

    inventory = sum(portfolio.holding("binance", symbol) * price for symbol, price in marks.items())

    expected = portfolio.balances()["binance"]["cash"] - 1e6 + inventory
    assert portfolio.pnl(marks) == pytest.approx(expected, rel=1e-9, abs=1e-4)


@given(st.lists(quantities, min_size=1, max_size=20))
def test_selling_what_was_bought_closes_the_position(parts: list[float]) -> None:
    portfolio = Portfolio({"binance": 1e9})
    for quantity in parts:
        portfolio.apply_fill("buy", "binance", SYMBOL, quantity, 100.0, 0.0)
    for quantity in reversed(parts):
        portfolio.apply_fill("sell", "binance", SYMBOL, quantity, 101.0, 0.0)

    assert portfolio.holding("binance", SYMBOL) == 0.0
    assert portfolio.pnl({}) == pytest.approx(sum(parts), rel=1e-9)


def test_a_round_trip_earns_the_difference_less_both_fees() -> None:
    portfolio = Portfolio({"binance": 1_000.0})

    portfolio.apply_fill("buy", "binance", SYMBOL, 0.5, 100.0, 0.05)
    portfolio.apply_fill("sell", "binance", SYMBOL, 0.5, 102.0, 0.051)

    assert portfolio.pnl({}) == pytest.approx(1.0 - 0.101)
    assert portfolio.fees == pytest.approx(0.101)
    assert portfolio.balances() == {"binance": {"cash": pytest.approx(1000.899), SYMBOL: 0.0}}


def test_one_exchange_cannot_sell_what_another_holds() -> None:
    portfolio = Portfolio({"binance": 1_000.0, "upbit": 1_000.0})
    portfolio.apply_fill("buy", "binance", SYMBOL, 0.5, 100.0, 0.0)

    assert "upbit holds 0" in portfolio.reject_reason("sell", "upbit", SYMBOL, 0.5, 0.0)
    assert portfolio.reject_reason("sell", "binance", SYMBOL, 0.5, 0.0) == ""
    with pytest.raises(ValueError, match="upbit holds 0"):
        portfolio.apply_fill("sell", "upbit", SYMBOL, 0.5, 100.0, 0.0)


def test_cash_that_is_not_there_buys_nothing() -> None:
    assert "50.00" in Portfolio({"binance": 49.0}).reject_reason("buy", "binance", SYMBOL, 0.5, 50.0)


def test_what_was_granted_is_no_profit_whatever_its_price_does() -> None:
    portfolio = Portfolio({"binance": 1_000.0, "upbit": 1_000.0})
    portfolio.grant("upbit", SYMBOL, 2.0)
    portfolio.apply_fill("buy", "binance", SYMBOL, 1.0, 100.0, 0.0)
    portfolio.apply_fill("sell", "upbit", SYMBOL, 1.0, 103.0, 0.0)

    assert portfolio.holding("binance", SYMBOL) + portfolio.holding("upbit", SYMBOL) == 2.0
    assert portfolio.pnl({}) == pytest.approx(3.0)


def test_a_position_without_a_price_has_no_profit_to_tell() -> None:
    portfolio = Portfolio({"binance": 1_000.0})
    portfolio.apply_fill("buy", "binance", SYMBOL, 1.0, 100.0, 0.0)

    with pytest.raises(KeyError):
        portfolio.pnl({})


@pytest.mark.parametrize(
    ("notional", "pnl", "open_trades", "reason"),
    [
        (100.0, 0.0, 0, ""),
        (101.0, 0.0, 0, "risk_notional"),
        (100.0, 0.0, 2, "risk_open_trades"),
        (100.0, -10.0, 0, "risk_daily_loss"),
        (100.0, -9.99, 1, ""),
    ],
)
def test_a_limit_stops_the_trade_that_would_pass_it(notional: float, pnl: float, open_trades: int, reason: str) -> None:
    guard = RiskGuard(RiskLimits(max_notional=100.0, max_daily_loss=10.0, max_open_trades=2))
    guard.observe(0.0, 0.0)

    assert guard.reject_reason(notional, pnl, open_trades)[0] == reason


def test_a_new_day_forgives_the_loss_of_the_day_before() -> None:
    guard = RiskGuard(RiskLimits(max_daily_loss=10.0))
    guard.observe(86_000.0, 0.0)
    assert guard.reject_reason(1.0, -12.0, 0)[0] == "risk_daily_loss"

    guard.observe(86_400.0, -12.0)

    assert guard.reject_reason(1.0, -12.0, 0)[0] == ""
    assert guard.reject_reason(1.0, -22.0, 0)[0] == "risk_daily_loss"
