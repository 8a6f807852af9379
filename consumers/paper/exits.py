"""Why and where a position is sold, and what stands in the way of it."""

from collections.abc import Callable, Sequence

from bookbus.consumers.paper.broker import RunContext
from bookbus.consumers.paper.decision import best_to_sell
from bookbus.consumers.paper.fills.model import Order
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.open_trade import OpenTrade
from bookbus.consumers.paper.order_rules import Refusal, fit_order
from bookbus.consumers.paper.records import ExitReason
from bookbus.schemas.instruments import Instrument

TOO_SMALL = frozenset({"below_step", "below_minimum_notional"})
"""Refusals of what no exchange would ever take: it stays in the account."""


class Exits:
    """One symbol's; `instrument_of` has it on each exchange."""

    def __init__(self, symbol: str, context: RunContext, instrument_of: Callable[[str], Instrument]) -> None:
        self._symbol = symbol
        self._context = context
        self._instrument_of = instrument_of

    def why_leave(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> ExitReason | None:
        """Loss, profit or time; None to stay."""
        if self.loses(trade, quotes):
            return "stop_loss"
        bid = self._bid(trade, quotes)
        if trade.sent is None and bid is not None and bid >= trade.entry_price * (1 + trade.target.tp_bps / 1e4):
            return "take_profit"
        return "time" if now >= trade.deadline else None

    def loses(self, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> bool:
        """Whether the stop is passed."""
        bid = self._bid(trade, quotes)
        return bid is not None and bid <= trade.entry_price * (1 - self._context.settings.sl_bps / 1e4)

    def seller(self, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> VenueQuote | None:
        """Where the position brings most; None while it cannot be sold."""
        held, portfolio = float(trade.remaining), self._context.portfolio
        holders = {quote.exchange: portfolio.holding(quote.exchange, self._symbol) >= held for quote in quotes}
        return best_to_sell(quotes, holders)

    def sale(self, now: float, trade: OpenTrade, quote: VenueQuote, price: float | None) -> Order | None:
        """An order to sell what is left, None with the reason on record if the exchange would not take it."""
        order = Order(
            exchange=quote.exchange,
            symbol=self._symbol,
            side="sell",
            quantity=float(trade.remaining),
            placed_us=round(now * 1e6),
            price=price,
            entry_bps=trade.target.entry_bps,
            tp_bps=trade.target.tp_bps,
        )
        bid = quote.book.best_bid() if quote.book is not None else None
        fitted = fit_order(order, self._instrument_of(quote.exchange), bid or 0.0)
        if isinstance(fitted, Refusal):
            self.blocked(now, trade, quote, fitted.code, fitted.detail)
            trade.too_small = fitted.code in TOO_SMALL
            return None
        return fitted

    def nowhere(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """No book can be sold on: put on record why."""
        quote = next((one for one in quotes if one.obstacle), quotes[0])
        self.blocked(now, trade, quote, quote.obstacle or "no_inventory", quote.detail)

    def blocked(self, now: float, trade: OpenTrade, quote: VenueQuote, reason: str, detail: str) -> None:
        """The position cannot be sold: once on record for each reason."""
        if trade.blocked == reason:
            return
        trade.blocked = reason
        self._context.record.blocked_exits[reason] += 1
        self._context.write_decision(
            now,
            self._symbol,
            "exit",
            quote,
            reason=reason,
            detail=detail,
            trade_id=trade.trade_id,
            target=trade.target,
        )

    def _bid(self, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> float | None:
        quote = self.seller(trade, quotes)
        return quote.book.best_bid() if quote is not None and quote.book is not None else None
