"""Everything that decides what a run does."""

from typing import Literal

import msgspec

from bookbus.consumers.freshness import MAX_AGE
from bookbus.consumers.paper.entry_zones import EntrySettings
from bookbus.consumers.paper.risk import RiskLimits

FillModelMode = Literal["none", "advisory", "strict"]

PASSIVE_MODELS = frozenset({"queue", "calibrated"})
"""Fill models whose orders wait for the market."""

DEFAULT_DURATION = 1200.0
SMOKE_DURATION = 300.0
_KRW_A_DOLLAR = 1_000
"""Roughly: amounts that are not given are these many times larger in KRW."""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are in the quote currency; None is the default for that currency."""

    source: str = "mock"
    symbols: tuple[str, ...] = ("BTC",)
    duration: float | None = DEFAULT_DURATION
    """None runs to the end of a recording."""
    trade_interval: float = 10.0
    max_hold: float | None = None
    """How long a waiting entry waits, and how long a position is held; None is one trade interval."""
    order_quantity: float = 0.001
    order_notional: float | None = None
    """In place of a quantity: what an order is worth."""
    fill_model: str = "book_walk"
    calibrated_mode: Literal["sampled", "expected"] = "sampled"
    fillmodel_mode: FillModelMode = "none"
    calibration_path: str | None = None
    min_fill_probability: float = 0.3
    """Below it, strict mode refuses a zone."""
    entry: EntrySettings = EntrySettings()
    sl_bps: float = 12.0
    fees: dict[str, float] = {}
    cash: float | None = None
    """On each exchange."""
    inventory_notional: float = 0.0
    """What each exchange holds of each symbol to begin with, so that it can sell what another bought."""
    max_notional: float | None = None
    max_daily_loss: float | None = None
    max_open_trades: int = 10
    max_age: float = MAX_AGE
    depth: int = 20
    session_tag: str = ""

    @property
    def hold(self) -> float:
        """Seconds that an entry waits, and that a position is held."""
        return self.trade_interval if self.max_hold is None else self.max_hold

    def cash_in(self, quote: str) -> float:
        """What each exchange begins with."""
        return _amount(self.cash, 10_000.0, quote)

    def limits_in(self, quote: str) -> RiskLimits:
        """The limits in this currency."""
        return RiskLimits(
            _amount(self.max_notional, 10_000.0, quote),
            _amount(self.max_daily_loss, 1_000.0, quote),
            self.max_open_trades,
        )


def check(settings: RunSettings) -> None:
    """Raises ValueError for a number that makes no sense."""
    positive = {
        "--duration-seconds": settings.duration,
        "--trade-interval": settings.trade_interval,
        "--max-hold": settings.max_hold,
        "--order-quantity": settings.order_quantity,
        "--order-notional": settings.order_notional,
        "--sl-bps": settings.sl_bps,
        "--cash": settings.cash,
        "--max-notional": settings.max_notional,
        "--max-daily-loss": settings.max_daily_loss,
        "--max-age": settings.max_age,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{option} {value}: give a number above 0")
    if not 0 <= settings.min_fill_probability <= 1:
        raise ValueError(f"--min-fill-probability {settings.min_fill_probability}: give a number from 0 to 1")
    if settings.fillmodel_mode != "none" and settings.calibration_path is None:
        raise ValueError(f"--fillmodel-mode {settings.fillmodel_mode} goes by a table: give --calibration-path")


def _amount(given: float | None, default: float, quote: str) -> float:
    return given if given is not None else default * (_KRW_A_DOLLAR if quote == "KRW" else 1)
