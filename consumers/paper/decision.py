"""Whether to enter a trade now, where and for how much."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bookbus.consumers.paper.broker import Entry, RunContext, waiting_cost
from bookbus.consumers.paper.calibration.table import Expectation
from bookbus.consumers.paper.entry_zones import Target
from bookbus.consumers.paper.fills.model import Order
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.open_trade import OpenTrade
from bookbus.consumers.paper.order_rules import Refusal, entry_price, fit_order
from bookbus.schemas.instruments import Instrument


class Skip(NamedTuple):
    """No order: `reason` in one word for counting, `detail` for people."""

    reason: str
    detail: str


def decide(
    context: RunContext,
    symbol: str,
    now: float,
    quotes: Sequence[VenueQuote],
    target: Target,
    advice: Expectation | None,
    instrument_of: Callable[[str], Instrument],
    open_trade: OpenTrade | None,
) -> Entry | Skip:
    """Buy where it costs least after fees, unless something stands against it."""
    quote = best_to_buy(quotes)
    if quote is None:
        return _no_book(quotes)
    if open_trade is not None:
        return Skip("open_trade", f"{open_trade.trade_id} is open")
    settings = context.settings
    if settings.fillmodel_mode == "strict" and (refused := _zone_refused(advice, settings.min_fill_probability)):
        return refused
    order = _order(context, symbol, now, quote, target, instrument_of(quote.exchange))
    return order if isinstance(order, Skip) else _affordable(context, Entry(quote, order))


def best_to_buy(quotes: Sequence[VenueQuote]) -> VenueQuote | None:
    """Where an asset costs least after the fee; None if no book may be traded on."""
    tradable = [(quote.book.asks[0][0], quote) for quote in quotes if not quote.obstacle and quote.book is not None]
    return min(tradable, key=lambda one: one[0] * (1 + one[1].fee_bps / 1e4), default=(0.0, None))[1]


def best_to_sell(quotes: Sequence[VenueQuote], holders: Mapping[str, bool]) -> VenueQuote | None:
    """Where it brings most after the fee, among exchanges that hold it; None if there is none."""
    tradable = [
        (quote.book.bids[0][0], quote)
        for quote in quotes
        if not quote.obstacle and quote.book is not None and holders[quote.exchange]
    ]
    return max(tradable, key=lambda one: one[0] * (1 - one[1].fee_bps / 1e4), default=(0.0, None))[1]


def _no_book(quotes: Sequence[VenueQuote]) -> Skip:
    reasons = {quote.obstacle for quote in quotes}
    details = dict.fromkeys(quote.detail for quote in quotes if quote.detail)
    return Skip(reasons.pop() if len(reasons) == 1 else "no_exchange", "; ".join(details))


def _zone_refused(advice: Expectation | None, minimum: float) -> Skip | None:
    if advice is None or advice.zone_id is None:
        return Skip("zone_unknown", advice.reason if advice is not None else "there is no table")
    if advice.buy is None or advice.sell is None:
        return Skip("zone_unusable", f"{advice.zone_id}: {advice.reason}")
    if advice.buy < minimum:
        return Skip("zone_refused", f"{advice.zone_id} fills {advice.buy:.1%} of entries, {minimum:.1%} are asked for")
    return None


def _order(
    context: RunContext, symbol: str, now: float, quote: VenueQuote, target: Target, instrument: Instrument
) -> Order | Skip:
    """A limit `entry_bps` behind the best bid where orders wait, as far beyond the best ask where they take."""
    settings, book = context.settings, quote.book
    if book is None:
        raise ValueError("an order is decided on a book")
    ask = book.asks[0][0]
    price: float | None = ask * (1 + target.entry_bps / 1e4)
    if context.execution.passive:
        price = entry_price("buy", book, target.entry_bps, instrument.tick)
    if price is None:
        return Skip("no_entry_price", f"{target.entry_bps:g} bps behind the best bid there is no price")
    quantity = settings.order_quantity if settings.order_notional is None else settings.order_notional / price
    order = Order(
        exchange=quote.exchange,
        symbol=symbol,
        side="buy",
        quantity=quantity,
        placed_us=round(now * 1e6),
        price=price,
        entry_bps=target.entry_bps,
        tp_bps=target.tp_bps,
    )
    fitted = fit_order(order, instrument, ask)
    return Skip(fitted.code, fitted.detail) if isinstance(fitted, Refusal) else fitted


def _affordable(context: RunContext, entry: Entry) -> Entry | Skip:
    order, exchange = entry.order, entry.quote.exchange
    notional = order.quantity * (order.price or 0.0)
    reason, detail = context.guard.why_not(notional, context.pnl, context.open_trades)
    if reason:
        return Skip(reason, detail)
    cost = waiting_cost(entry) + context.reserved[exchange]
    if why := context.portfolio.why_not("buy", exchange, order.symbol, order.quantity, cost):
        return Skip("no_balance", why)
    return entry
