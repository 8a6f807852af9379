"""Portfolio and risk: one account for each exchange, and the limits of new trades."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from bookbus.schemas.snapshot import Side

_ZERO = Fraction()
_DAY = 86_400


class Portfolio:
    """One account for each exchange. No transfers between accounts, no short sales, no borrowing.

    Prices and fees are in one quote currency; a fill in another currency is converted when it happens.
    """

    def __init__(self, exchanges: Mapping[str, float]) -> None:
        """`exchanges` has the first cash of each exchange."""
        self._accounts = {exchange: Account(exact(cash)) for exchange, cash in exchanges.items()}
        self._granted: defaultdict[str, Fraction] = defaultdict(Fraction)
        self._cash_before = sum((account.cash for account in self._accounts.values()), _ZERO)
        self._fees = _ZERO

    @property
    def fees(self) -> float:
        return float(self._fees)

    def grant(self, exchange: str, symbol: str, quantity: float) -> None:
        """Add first inventory; its own changes of value do not count as profit."""
        self._accounts[exchange].holdings[symbol] += exact(quantity)
        self._granted[symbol] += exact(quantity)

    def holding(self, exchange: str, symbol: str) -> float:
        """Quantity of the symbol's base asset that can be sold there."""
        return float(self._accounts[exchange].holdings[symbol])

    def reject_reason(self, side: Side, exchange: str, symbol: str, quantity: float, cost: float) -> str:
        """Why this account cannot trade that; empty if it can. `cost` includes the fee; a sale has none."""
        account = self._accounts[exchange]
        if side == "buy" and account.cash < exact(cost):
            return f"{exchange} holds {float(account.cash):.2f} and {cost:.2f} are needed"
        if side == "sell" and account.holdings[symbol] < exact(quantity):
            return f"{exchange} holds {float(account.holdings[symbol]):g} of {symbol} and {quantity:g} are asked for"
        return ""

    def apply_fill(
        self, side: Side, exchange: str, symbol: str, quantity: float | Fraction, price: float, fee: float
    ) -> None:
        """Raises ValueError for a sale of more than the account holds."""
        account, amount = self._accounts[exchange], exact(quantity)
        if side == "buy":
            account.cash -= amount * exact(price)
            account.holdings[symbol] += amount
        else:
            if account.holdings[symbol] < amount:
                raise ValueError(self.reject_reason("sell", exchange, symbol, float(quantity), 0.0))
            account.cash += amount * exact(price)
            account.holdings[symbol] -= amount
        account.cash -= exact(fee)
        self._fees += exact(fee)

    def pnl(self, marks: Mapping[str, float]) -> float:
        """Change of cash plus positions at these prices, after fees. Raises KeyError for a position without a price."""
        worth = self._cash_gained()
        for symbol in {symbol for account in self._accounts.values() for symbol in account.holdings}:
            if position := self._position(symbol):
                worth += position * exact(marks[symbol])
        return float(worth)

    def balances(self) -> dict[str, dict[str, float]]:
        """By exchange: `cash`, and the quantity of each symbol."""
        return {
            exchange: {
                "cash": float(account.cash),
                **{symbol: float(quantity) for symbol, quantity in sorted(account.holdings.items())},
            }
            for exchange, account in self._accounts.items()
        }

    def _cash_gained(self) -> Fraction:
        return sum((account.cash for account in self._accounts.values()), _ZERO) - self._cash_before

    def _position(self, symbol: str) -> Fraction:
        held = sum((account.holdings[symbol] for account in self._accounts.values()), _ZERO)
        return held - self._granted[symbol]


@dataclass(slots=True)
class Account:
    """Cash in the run's quote currency, and quantities by symbol."""

    cash: Fraction
    holdings: defaultdict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """In the run's quote currency; a loss limit stops new trades, never an exit."""

    max_notional: float = 10_000.0
    max_daily_loss: float = 1_000.0
    max_open_trades: int = 10


class RiskGuard:
    """Rejects new trades that would exceed a limit."""

    def __init__(self, limits: RiskLimits) -> None:
        self._limits = limits
        self._day: int | None = None
        self._pnl_at_midnight = 0.0

    def observe(self, now: float, pnl: float) -> None:
        """Update the profit so far; `now` is in seconds since 1970. Days are UTC days."""
        day = int(now // _DAY)
        if day != self._day:
            # A run that starts during a day starts that day with a profit of zero.
            self._day, self._pnl_at_midnight = day, pnl if self._day is not None else 0.0

    def reject_reason(self, notional: float, pnl: float, open_trades: int) -> tuple[str, str]:
        """Code and text of the limit that a new trade would exceed; both empty if none."""
        limits = self._limits
        if notional > limits.max_notional:
            return "risk_notional", f"{notional:.2f} is more than {limits.max_notional:g} a trade"
        if open_trades >= limits.max_open_trades:
            return "risk_open_trades", f"{open_trades} trades are open"
        loss = self._pnl_at_midnight - pnl
        if loss >= limits.max_daily_loss:
            return "risk_daily_loss", f"{loss:.2f} lost today, the limit is {limits.max_daily_loss:g}"
        return "", ""


def exact(number: float | Fraction) -> Fraction:
    """The exact value of a float's shortest decimal form, so that the sum of partial fills is exact."""
    return number if isinstance(number, Fraction) else Fraction(repr(number))
