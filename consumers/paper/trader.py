"""One symbol's decisions, and its open trade from entry to exit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bookbus.consumers.paper import order_flow
from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.broker import Entry, RunContext
from bookbus.consumers.paper.decision import Skip, decide
from bookbus.consumers.paper.entry_zones import EntryChooser
from bookbus.consumers.paper.exits import Exits
from bookbus.consumers.paper.fills.model import FillReason, TapeEvent
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.open_trade import OpenTrade
from bookbus.consumers.paper.order_rules import take_profit_price
from bookbus.consumers.paper.price_unit import PriceUnit
from bookbus.schemas.instruments import Instrument


class Desk:
    """Feed it every step; ask it for a decision when one is due. At most one trade is open."""

    def __init__(
        self, symbol: str, context: RunContext, chooser: EntryChooser, instruments: Mapping[str, Instrument]
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
            order_flow.receive(self._context, now, trade, event, quotes)
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
            order_flow.wait(context, trade, found)
        else:
            order_flow.take(context, now, trade, found)
        self._go_on(now, trade, quotes)

    def end(self, now: float, quotes: Sequence[VenueQuote]) -> None:
        """The run is over: take back what waits, sell what is held if there is a book to sell on."""
        trade = self._trade
        if trade is None:
            return
        if trade.sent is not None:
            order_flow.finish(self._context, now, trade, trade.sent)
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
                order_flow.cancel(now, sent)
            if not order_flow.is_done(now, sent):
                return
            order_flow.finish(context, now, trade, sent)
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
            order_flow.wait(self._context, trade, Entry(quote, order))

    def _hold(self, now: float, trade: OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Wait for profit, loss or time."""
        sent = trade.sent
        if sent is not None and order_flow.is_done(now, sent):
            order_flow.finish(self._context, now, trade, sent)
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
            order_flow.cancel(now, sent)

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
        fill = order_flow.take(self._context, now, trade, Entry(quote, order))
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
