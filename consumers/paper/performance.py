"""What a strategy earned: the flows of each market, the equity curve, and the figures that people compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import msgspec

from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.fills.model import Liquidity
from bookbus.schemas.snapshot import Side

_ZERO = Fraction()
_YEAR = 365 * 86_400
_LONG_RUN = 30 * 86_400
"""Seconds from which a ratio is annualised."""


@dataclass(slots=True)
class Ledger:
    """The flows of one market, exact: `cash` and `fees` in its quote asset, `position` in its base asset.

    Fees charged in the base asset reduce the position, and count in `fees` at the price of their fill. What was held
    before the run is not in it.
    """

    cash: Fraction = _ZERO
    position: Fraction = _ZERO
    fees: Fraction = _ZERO
    turnover: Fraction = _ZERO
    fills: int = 0
    maker_fills: int = 0
    closes: int = 0
    wins: int = 0
    _cost: Fraction = _ZERO
    """Of the position, fees included; negative for one that was held before and sold."""

    def apply(
        self,
        side: Side,
        quantity: Fraction,
        price: float,
        quote_fee: Fraction,
        base_fee: Fraction,
        liquidity: Liquidity,
    ) -> None:
        """Add one fill."""
        value = quantity * exact(price)
        self.fills += 1
        self.maker_fills += liquidity == "maker"
        self.turnover += value
        self.fees += quote_fee + base_fee * exact(price)
        cash = (-value if side == "buy" else value) - quote_fee
        base = quantity - base_fee if side == "buy" else -quantity
        self.cash += cash
        self._close(base, cash)
        self.position += base

    def pnl(self, mid: float | None) -> Fraction:
        """In the quote asset, the position at this mid price. Without one, a position is worth what it cost."""
        return self.cash + (self._cost if mid is None else self.position * exact(mid))

    def _close(self, base: Fraction, cash: Fraction) -> None:
        """Update the average cost, and count whether what this fill closes was a gain."""
        position = self.position
        if position * base >= 0:
            self._cost -= cash
            return
        closed = min(abs(base), abs(position))
        part = closed / abs(base) * cash
        cost = self._cost * closed / abs(position)
        self.closes += 1
        self.wins += part > cost
        # What goes beyond the position opens one on the other side.
        self._cost += -cost - (cash - part)


class SymbolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one market in its quote asset, after fees; exposures are the position's value at the samples."""

    symbol: str
    currency: str
    fills: int
    maker_fills: int
    turnover: float
    fees: float
    pnl: float
    position: float
    """Bought less sold in the run."""
    closes: int
    """Fills that reduced a position."""
    hit_ratio: float | None
    """Share of these that gained against the average cost, fees included."""
    mean_exposure: float
    largest_exposure: float
    time_in_market: float
    """Share of the samples with a position."""


class CurveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the equity curve of one currency; ratios are mean over deviation of the changes between samples.

    `sharpe` and `sortino` are per sample; the annualised ones are None for a run of less than 30 days.
    """

    currency: str
    pnl: float
    turnover: float
    fees: float
    max_drawdown: float
    """Largest fall of the curve below an earlier sample."""
    drawdown_seconds: float
    """Longest time below an earlier maximum."""
    samples: int
    sample_seconds: float
    sharpe: float | None
    sortino: float | None
    sharpe_annualised: float | None
    sortino_annualised: float | None


@dataclass(slots=True)
class EquityCurve:
    """Profit by currency and exposure by market, sampled at an even interval."""

    interval: float
    times: list[float] = field(default_factory=list)
    pnl: dict[str, list[float]] = field(default_factory=dict)
    exposure: dict[str, list[float]] = field(default_factory=dict)

    def add(self, time: float, pnl: Mapping[str, float], exposure: Mapping[str, float]) -> None:
        self.times.append(time)
        for currency, amount in pnl.items():
            self.pnl.setdefault(currency, []).append(amount)
        for symbol, amount in exposure.items():
            self.exposure.setdefault(symbol, []).append(amount)

    def figures(self, currency: str, ledgers: Sequence[Ledger], pnl: Fraction) -> CurveFigures:
        """`pnl` is the profit at the end of the run."""
        curve = self.pnl.get(currency, [])
        changes = [after - before for before, after in pairwise(curve)]
        sharpe, sortino = _ratios(changes)
        depth, seconds = _drawdown(self.times, curve)
        long = len(changes) * self.interval >= _LONG_RUN
        factor = math.sqrt(_YEAR / self.interval)
        return CurveFigures(
            currency=currency,
            pnl=float(pnl),
            turnover=float(sum((ledger.turnover for ledger in ledgers), _ZERO)),
            fees=float(sum((ledger.fees for ledger in ledgers), _ZERO)),
            max_drawdown=depth,
            drawdown_seconds=seconds,
            samples=len(curve),
            sample_seconds=self.interval,
            sharpe=sharpe,
            sortino=sortino,
            sharpe_annualised=sharpe * factor if long and sharpe is not None else None,
            sortino_annualised=sortino * factor if long and sortino is not None else None,
        )

    def symbol_figures(self, symbol: str, currency: str, ledger: Ledger, mid: float | None) -> SymbolFigures:
        exposures = self.exposure.get(symbol, [])
        count = len(exposures)
        return SymbolFigures(
            symbol=symbol,
            currency=currency,
            fills=ledger.fills,
            maker_fills=ledger.maker_fills,
            turnover=float(ledger.turnover),
            fees=float(ledger.fees),
            pnl=float(ledger.pnl(mid)),
            position=float(ledger.position),
            closes=ledger.closes,
            hit_ratio=ledger.wins / ledger.closes if ledger.closes else None,
            mean_exposure=math.fsum(exposures) / count if count else 0.0,
            largest_exposure=max(exposures, key=abs, default=0.0),
            time_in_market=sum(one != 0 for one in exposures) / count if count else 0.0,
        )


def _ratios(changes: Sequence[float]) -> tuple[float | None, float | None]:
    """Sharpe and Sortino against a target of zero; None where there is no deviation."""
    count = len(changes)
    if count < 2:
        return None, None
    mean = math.fsum(changes) / count
    deviation = math.sqrt(math.fsum((change - mean) ** 2 for change in changes) / (count - 1))
    downside = math.sqrt(math.fsum(min(change, 0.0) ** 2 for change in changes) / count)
    return (mean / deviation if deviation else None), (mean / downside if downside else None)


def _drawdown(times: Sequence[float], curve: Sequence[float]) -> tuple[float, float]:
    """The deepest fall below an earlier maximum, and the longest time below one."""
    deepest = longest = 0.0
    peak, peak_at = -math.inf, 0.0
    for time, value in zip(times, curve, strict=True):
        if value >= peak:
            peak, peak_at = value, time
        deepest, longest = max(deepest, peak - value), max(longest, time - peak_at)
    return deepest, longest
