"""Limits on what the runner may do."""

from dataclasses import dataclass

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """In the run's quote currency; a loss limit stops new trades, never an exit."""

    max_notional: float = 10_000.0
    max_daily_loss: float = 1_000.0
    max_open_trades: int = 10


class RiskGuard:
    """Says no before a limit is passed."""

    def __init__(self, limits: RiskLimits) -> None:
        self._limits = limits
        self._day: int | None = None
        self._pnl_at_midnight = 0.0

    def observe(self, now: float, pnl: float) -> None:
        """The profit so far, at a time in seconds since 1970. A day is one of UTC."""
        day = int(now // _DAY)
        if day != self._day:
            # A run that begins at noon has lost nothing that day before.
            self._day, self._pnl_at_midnight = day, pnl if self._day is not None else 0.0

    def why_not(self, notional: float, pnl: float, open_trades: int) -> tuple[str, str]:
        """Which limit a new trade would pass, and how; empty if none."""
        limits = self._limits
        if notional > limits.max_notional:
            return "risk_notional", f"{notional:.2f} is more than {limits.max_notional:g} a trade"
        if open_trades >= limits.max_open_trades:
            return "risk_open_trades", f"{open_trades} trades are open"
        loss = self._pnl_at_midnight - pnl
        if loss >= limits.max_daily_loss:
            return "risk_daily_loss", f"{loss:.2f} lost today, the limit is {limits.max_daily_loss:g}"
        return "", ""
