"""One symbol's decisions, and its open trade from entry to exit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bookbus.consumers.paper import broker
from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.broker import Entry, OpenTrade, PaperBroker, waiting_cost
from bookbus.consumers.paper.calibration.table import Expectation
from bookbus.consumers.paper.fills.model import FillReason, Order, TapeEvent
from bookbus.consumers.paper.market import PriceUnit, VenueQuote
from bookbus.consumers.paper.order_rules import Rejection, entry_price, fit_order, take_profit_price
from bookbus.consumers.paper.records import ExitReason
from bookbus.consumers.paper.settings import EntryChooser, Target
from bookbus.schemas.instruments import Instrument


class Skip(NamedTuple):
    """No order: `reason` in one word for counting, `detail` for people."""

    reason: str
    detail: str


def decide(
    context: PaperBroker,
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
    tradable = [
        (quote.book.asks[0][0], quote) for quote in quotes if not quote.reject_reason and quote.book is not None
    ]
    return min(tradable, key=lambda one: one[0] * (1 + one[1].fee_bps / 1e4), default=(0.0, None))[1]


def best_to_sell(quotes: Sequence[VenueQuote], holders: Mapping[str, bool]) -> VenueQuote | None:
    """Where it brings most after the fee, among exchanges that hold it; None if there is none."""
    tradable = [
        (quote.book.bids[0][0], quote)
        for quote in quotes
        if not quote.reject_reason and quote.book is not None and holders[quote.exchange]
    ]
    return max(tradable, key=lambda one: one[0] * (1 - one[1].fee_bps / 1e4), default=(0.0, None))[1]


def _no_book(quotes: Sequence[VenueQuote]) -> Skip:
    reasons = {quote.reject_reason for quote in quotes}
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
    context: PaperBroker, symbol: str, now: float, quote: VenueQuote, target: Target, instrument: Instrument
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
    return Skip(fitted.code, fitted.detail) if isinstance(fitted, Rejection) else fitted


def _affordable(context: PaperBroker, entry: Entry) -> Entry | Skip:
    order, exchange = entry.order, entry.quote.exchange
    notional = order.quantity * (order.price or 0.0)
    reason, detail = context.guard.reject_reason(notional, context.pnl, context.open_trades)
    if reason:
        return Skip(reason, detail)
    cost = waiting_cost(entry) + context.reserved[exchange]
    if why := context.portfolio.reject_reason("buy", exchange, order.symbol, order.quantity, cost):
        return Skip("no_balance", why)
    return entry


TOO_SMALL = frozenset({"below_step", "below_minimum_notional"})
"""Refusals of what no exchange would ever take: it stays in the account."""


class Exits:
    """One symbol's; `instrument_of` has it on each exchange."""

    def __init__(self, symbol: str, context: PaperBroker, instrument_of: Callable[[str], Instrument]) -> None:
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
        if isinstance(fitted, Rejection):
            self.blocked(now, trade, quote, fitted.code, fitted.detail)
            trade.too_small = fitted.code in TOO_SMALL
            return None
        return fitted

    def nowhere(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """No book can be sold on: put on record why."""
        quote = next((one for one in quotes if one.reject_reason), quotes[0])
        self.blocked(now, trade, quote, quote.reject_reason or "no_inventory", quote.detail)

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


class SymbolTrader:
    """Feed it every step; ask it for a decision when one is due. At most one trade is open."""

    def __init__(
        self, symbol: str, context: PaperBroker, chooser: EntryChooser, instruments: Mapping[str, Instrument]
    ) -> None:
        """`instruments` has the symbol on each exchange."""
        self.symbol = symbol
        self._context = context
        self._chooser = chooser
        self._known = instruments
        self._units = {exchange: PriceUnit() for exchange in instruments}
        self._exits = Exits(symbol, context, self._instrument)
        self._trade: OpenTrade | None = None

    @property
    def next_due(self) -> float:
        """When the open trade has waited long enough; infinity while none waits."""
        trade = self._trade
        waits = trade is not None and trade.phase != "exiting" and not (trade.sent and trade.sent.cancelled_at)
        return trade.deadline if trade is not None and waits else float("inf")

    @property
    def waits(self) -> bool:
        """Whether an order waits on the exchange."""
        return self._trade is not None and self._trade.sent is not None

    def step(self, now: float, quotes: Sequence[VenueQuote], events: Sequence[TapeEvent]) -> None:
        """What happened since the last step, and the books as they are now."""
        for quote in quotes:
            self._observe(quote)
        trade = self._trade
        if trade is None:
            return
        for event in events:
            broker.receive(self._context, now, trade, event, quotes)
        self._go_on(now, trade, quotes)

    def decide(self, now: float, due: float, quotes: Sequence[VenueQuote]) -> None:
        """Enter, or say why not. `due` is when the decision should have been made, a little before."""
        context = self._context
        context.record.decisions += 1
        target = self._chooser.next()
        advice = context.table.expect(*target) if context.table is not None else None
        found = decide(context, self.symbol, now, quotes, target, advice, self._instrument, self._trade)
        if isinstance(found, Skip):
            context.record.skipped[found.reason] += 1
            context.write_decision(
                now,
                self.symbol,
                "skip",
                quotes[0],
                reason=found.reason,
                detail=found.detail,
                target=target,
                advice=advice,
            )
            return
        trade = self._trade = OpenTrade(
            context.next_trade_id(), self.symbol, target, found.order.quantity, advice, due + context.settings.hold
        )
        context.open_trades += 1
        context.record.entries += 1
        context.write_decision(
            now, self.symbol, "enter", found.quote, trade_id=trade.trade_id, target=target, advice=advice
        )
        if context.execution.passive:
            broker.wait(context, trade, found)
        else:
            broker.take(context, now, trade, found)
        self._go_on(now, trade, quotes)

    def end(self, now: float, quotes: Sequence[VenueQuote]) -> None:
        """The run is over: take back what waits, sell what is held if there is a book to sell on."""
        trade = self._trade
        if trade is None:
            return
        if trade.sent is not None:
            broker.finish(self._context, now, trade, trade.sent)
        if not trade.remaining:
            self._close(trade)
            return
        if trade.phase != "exiting":
            trade.phase, trade.exit_reason = "exiting", "end"
        self._leave(now, trade, quotes)

    def _observe(self, quote: VenueQuote) -> None:
        execution, book = self._context.execution, quote.book
        if book is None:
            return
        execution.observe(book)
        # Only waiting orders have to stand on a level of the book.
        if execution.passive and self._known[quote.exchange].tick is None:
            self._units[quote.exchange].observe(book)

    def _instrument(self, exchange: str) -> Instrument:
        """What the exchange said of the symbol; the tick that its prices show where it said nothing."""
        known = self._known[exchange]
        return known if known.tick is not None else replace(known, tick=self._units[exchange].tick)

    def _go_on(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        if trade.phase == "entering":
            self._enter(now, trade, quotes)
        if trade.phase == "holding":
            self._hold(now, trade, quotes)
        if trade.phase == "exiting":
            self._leave(now, trade, quotes)

    def _enter(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Wait for the entry to be filled, for as long as it may take."""
        context, sent = self._context, trade.sent
        if sent is not None:
            if now >= trade.deadline or (trade.bought and self._exits.loses(trade, quotes)):
                broker.cancel(now, sent)
            if not broker.is_done(now, sent):
                return
            broker.finish(context, now, trade, sent)
        # Fills that the table drew itself say nothing about it.
        if trade.expected is not None and context.execution.calibrated is None:
            context.record.advised.append((trade.expected, trade.entered_whole))
        if not trade.bought:
            self._close(trade)
            return
        trade.phase = "holding"
        if context.execution.passive:
            trade.deadline = now + context.settings.hold
            self._wait_for_profit(now, trade, quotes)

    def _wait_for_profit(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Send the order that takes the profit. Without a book to send it by, the position is only watched."""
        quote = self._exits.seller(trade, quotes)
        if quote is None:
            return
        instrument = self._instrument(quote.exchange)
        price = take_profit_price("buy", trade.entry_price, trade.target.tp_bps, instrument.tick)
        order = self._exits.sale(now, trade, quote, price)
        if order is not None:
            broker.wait(self._context, trade, Entry(quote, order))

    def _hold(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Wait for profit, loss or time."""
        sent = trade.sent
        if sent is not None and broker.is_done(now, sent):
            broker.finish(self._context, now, trade, sent)
            if sent.waiting is not None and sent.waiting.total().reason is FillReason.FILLED:
                trade.exit_reason = "take_profit"
            if not trade.remaining:
                self._close(trade)
                return
            sent = None
        reason = trade.exit_reason or self._exits.why_leave(now, trade, quotes)
        if reason is None:
            return
        trade.exit_reason = reason
        if sent is None:
            trade.phase = "exiting"
        else:
            broker.cancel(now, sent)

    def _leave(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Sell what is left, as often as it takes; each book is tried once."""
        quote = self._exits.seller(trade, quotes)
        if quote is None or quote.book is None:
            self._exits.nowhere(now, trade, quotes)
            return
        # The same book again holds no more, also where a new rate gave it other prices.
        tried = (quote.exchange, quote.book.seq, quote.book.update_id, quote.book.received_us)
        if trade.tried == tried:
            return
        trade.tried = tried
        order = self._exits.sale(now, trade, quote, None)
        if order is None:
            if trade.too_small:
                self._close(trade)
            return
        fill = broker.take(self._context, now, trade, Entry(quote, order))
        if trade.remaining and fill.quantity == order.quantity:
            self._exits.sale(now, trade, quote, None)  # what whole steps left over: nobody takes it
        if not trade.remaining or trade.too_small:
            self._close(trade)
        elif not fill.quantity:
            self._exits.blocked(now, trade, quote, fill.reason, "")

    def _close(self, trade: OpenTrade) -> None:
        context = self._context
        self._trade = None
        context.open_trades -= 1
        if not trade.bought:
            return
        context.record.closed += 1
        context.record.wins += trade.pnl > exact(0.0)
        context.record.exits[trade.exit_reason or "end"] += 1
