"""One symbol's decisions: when to enter and where, and when to leave. The broker carries them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.broker import ROUNDING, PaperBroker, Position, SentOrder
from bookbus.consumers.paper.calibration.table import CalibrationTable, Expectation
from bookbus.consumers.paper.fills.model import FillReason, Order, TapeEvent
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.order_rules import PriceUnit, Rejection, entry_price, fit_order, take_profit_price
from bookbus.consumers.paper.records import ExitReason
from bookbus.consumers.paper.schedule import later
from bookbus.consumers.paper.settings import EntryChooser, RunSettings, Target
from bookbus.schemas.instruments import Instrument
from bookbus.schemas.snapshot import Side

_TOO_SMALL = frozenset({"below_step", "below_minimum_notional"})
"""Rejections of a quantity that no exchange takes: it stays in the account."""


class Enter(NamedTuple):
    """A decision to send this order, made on the book of `quote`."""

    quote: VenueQuote
    order: Order


@dataclass(slots=True)
class _OpenTrade:
    """`deadline` is when first the entry, then the position has waited long enough."""

    position: Position
    ordered: float
    deadline: float
    phase: Literal["entering", "holding", "exiting"] = "entering"
    waiting: SentOrder | None = None
    exit_reason: ExitReason | None = None
    blocked: str = ""
    """Code of why the last attempt to leave failed."""
    too_small: bool = False
    """The remaining quantity is less than the exchange takes."""
    last_book: tuple[str, int, int, int] | None = None
    """Exchange, `seq`, update id and receive time of the book of the last attempt to leave."""


class SymbolTrader:
    """Call `step` whenever something happened, `decide` when a decision is due. At most one trade is open."""

    def __init__(
        self,
        symbol: str,
        settings: RunSettings,
        broker: PaperBroker,
        table: CalibrationTable | None,
        chooser: EntryChooser,
        instruments: Mapping[str, Instrument],
    ) -> None:
        """`instruments` has the symbol's rules on each exchange."""
        self._symbol = symbol
        self._settings = settings
        self._broker = broker
        self._table = table
        self._chooser = chooser
        self._listed = instruments
        self._units = {exchange: PriceUnit() for exchange in instruments}
        self._trade: _OpenTrade | None = None

    @property
    def next_due(self) -> float:
        """When the open trade has waited long enough; infinity while none waits."""
        trade = self._trade
        if trade is None or trade.phase == "exiting" or (trade.waiting and trade.waiting.cancelled_at is not None):
            return float("inf")
        return trade.deadline

    @property
    def has_waiting_order(self) -> bool:
        return self._trade is not None and self._trade.waiting is not None

    def step(self, now: float, quotes: Sequence[VenueQuote], events: Sequence[TapeEvent]) -> None:
        """Act on the events since the last step and on the books as they are now."""
        for quote in quotes:
            self._observe(quote)
        trade = self._trade
        if trade is None:
            return
        for event in events:
            if trade.waiting is not None:
                self._broker.receive(now, trade.waiting, event, quotes)
        self._advance(now, trade, quotes)

    def decide(self, now: float, due: float, quotes: Sequence[VenueQuote]) -> None:
        """Enter, or record why not. `due` is when the decision was due, at or before `now`."""
        broker = self._broker
        broker.records.counters.decisions += 1
        target = self._chooser.next()
        advice = self._table.expect(*target) if self._table is not None else None
        decision = self._entry(now, quotes, target, advice)
        if isinstance(decision, Enter):
            decision = broker.rejection(*decision) or decision
        if isinstance(decision, Rejection):
            broker.records.write_skip(now, self._symbol, quotes[0], decision, target, advice)
            return
        position = broker.open_position(now, self._symbol, decision.quote, target, advice)
        trade = self._trade = _OpenTrade(position, decision.order.quantity, later(due, self._settings.hold))
        self._send(now, trade, *decision)
        self._advance(now, trade, quotes)

    def end(self, now: float, quotes: Sequence[VenueQuote]) -> None:
        """End of the run: take back a waiting order, sell what is held if there is a book to sell on."""
        trade = self._trade
        if trade is None:
            return
        if trade.waiting is not None:
            self._broker.finish(now, trade.waiting)
            trade.waiting = None
        if not trade.position.remaining:
            self._close(trade)
            return
        if trade.phase != "exiting":
            trade.phase, trade.exit_reason = "exiting", "end"
        self._leave(now, trade, quotes)

    def _entry(
        self, now: float, quotes: Sequence[VenueQuote], target: Target, advice: Expectation | None
    ) -> Enter | Rejection:
        """The decision alone: buy where it costs least after fees, unless a rule is against it. Sends nothing."""
        tradable = [quote for quote in quotes if not quote.entry_reason]
        quote = min(tradable, key=lambda quote: quote.ask_after_fee, default=None)
        if quote is None or quote.book is None:
            return _no_book(quotes)
        if self._trade is not None:
            return Rejection("open_trade", f"{self._trade.position.trade_id} is open")
        settings = self._settings
        if settings.fillmodel_mode == "strict":
            rejected = _zone_rejection(advice, settings.min_fill_probability)
            if rejected is not None:
                return rejected
        # A waiting order is `entry_bps` behind the best bid, any other at most as far beyond the best ask.
        instrument, ask = self._instrument(quote), quote.book.asks[0][0]
        price: float | None = ask * (1 + target.entry_bps / 1e4)
        if self._broker.execution.passive:
            price = entry_price("buy", quote.book, target.entry_bps, instrument.tick)
        if price is None:
            return Rejection("no_entry_price", f"{target.entry_bps:g} bps behind the best bid there is no price")
        quantity = settings.order_quantity if settings.order_notional is None else settings.order_notional / price
        fitted = fit_order(self._order(now, quote, "buy", quantity, price, target), instrument, ask)
        return fitted if isinstance(fitted, Rejection) else Enter(quote, fitted)

    def _observe(self, quote: VenueQuote) -> None:
        execution, book = self._broker.execution, quote.book
        if book is None:
            return
        execution.observe(book)
        # Only waiting orders have to stand on a level of the book.
        if execution.passive and self._listed[quote.exchange].tick is None:
            self._units[quote.exchange].observe(book)

    def _instrument(self, quote: VenueQuote) -> Instrument:
        """The exchange's rules; where it names no tick, the tick that its prices show.

        The list was read once: what the exchange says of the market now counts more.
        """
        listed = self._listed[quote.exchange]
        if quote.trading not in ("unknown", listed.status):
            listed = replace(listed, status=quote.trading)
        return listed if listed.tick is not None else replace(listed, tick=self._units[quote.exchange].tick)

    def _advance(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        if trade.phase == "entering":
            self._enter(now, trade, quotes)
        if trade.phase == "holding":
            self._hold(now, trade, quotes)
        if trade.phase == "exiting":
            self._leave(now, trade, quotes)

    def _enter(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Wait until the entry is filled or its time is over."""
        broker, position, sent = self._broker, trade.position, trade.waiting
        if sent is not None:
            if now >= trade.deadline or (position.bought and self._passed_stop(trade, quotes)):
                broker.cancel(now, sent)
            if not broker.is_done(now, sent):
                return
            broker.finish(now, sent)
            trade.waiting = None
        expected = position.advice.buy if position.advice is not None else None
        # Fills sampled from the table say nothing about it.
        if expected is not None and broker.execution.calibrated is None:
            filled = position.bought >= exact(trade.ordered) * (1 - ROUNDING)
            broker.records.counters.advised.append((expected, filled))
        if not position.bought:
            self._close(trade)
            return
        trade.phase = "holding"
        if broker.execution.passive:
            trade.deadline = later(now, self._settings.hold)
            self._send_take_profit(now, trade, quotes)

    def _send_take_profit(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Send the waiting exit. Without a book to send it on, `_hold` watches for the profit instead."""
        quote = self._best_to_sell(trade, quotes)
        if quote is None:
            return
        position, tick = trade.position, self._instrument(quote).tick
        price = take_profit_price("buy", position.entry_price, position.target.tp_bps, tick)
        order = self._exit_order(now, trade, quote, price)
        if order is not None:
            self._send(now, trade, quote, order)

    def _hold(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Wait for profit, loss or time."""
        sent = trade.waiting
        if sent is not None and self._broker.is_done(now, sent):
            fill = self._broker.finish(now, sent)
            trade.waiting = sent = None
            if fill.reason is FillReason.FILLED:
                trade.exit_reason = "take_profit"
            if not trade.position.remaining:
                self._close(trade)
                return
        trade.exit_reason = trade.exit_reason or self._exit_reason(now, trade, quotes)
        if trade.exit_reason is None:
            return
        if sent is None:
            trade.phase = "exiting"
        else:
            self._broker.cancel(now, sent)

    def _exit_reason(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> ExitReason | None:
        """Loss, profit or time; None to stay."""
        if self._passed_stop(trade, quotes):
            return "stop_loss"
        bid, position = self._bid(trade, quotes), trade.position
        profit_at = position.entry_price * (1 + position.target.tp_bps / 1e4)
        if trade.waiting is None and bid is not None and bid >= profit_at:
            return "take_profit"
        return "time" if now >= trade.deadline else None

    def _passed_stop(self, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> bool:
        bid = self._bid(trade, quotes)
        return bid is not None and bid <= trade.position.entry_price * (1 - self._settings.sl_bps / 1e4)

    def _leave(self, now: float, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> None:
        """Sell what is left, in as many orders as it takes; each book is tried once."""
        quote = self._best_to_sell(trade, quotes)
        if quote is None or quote.book is None:
            rejected = next((one for one in quotes if one.reject_reason), quotes[0])
            rejection = Rejection(rejected.reject_reason or "no_inventory", rejected.detail)
            self._record_blocked(now, trade, rejected, rejection)
            return
        # The same book again holds no more, also where a new rate gave it other prices.
        book = (quote.exchange, quote.book.seq, quote.book.update_id, quote.book.received_us)
        if trade.last_book == book:
            return
        trade.last_book = book
        order = self._exit_order(now, trade, quote, None)
        if order is None:
            if trade.too_small:
                self._close(trade)
            return
        fill = self._send(now, trade, quote, order).fill
        if fill is None:
            raise ValueError("an order without a limit does not wait")
        if trade.position.remaining and fill.quantity == order.quantity:
            # Sold up to the last whole step: records that the exchange takes no order for the rest.
            self._exit_order(now, trade, quote, None)
        if not trade.position.remaining or trade.too_small:
            self._close(trade)
        elif not fill.quantity:
            self._record_blocked(now, trade, quote, Rejection(fill.reason, ""))

    def _best_to_sell(self, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> VenueQuote | None:
        """Where the position brings most after fees; None while it cannot be sold."""
        held, portfolio = float(trade.position.remaining), self._broker.portfolio
        sellable = [
            quote
            for quote in quotes
            if not quote.reject_reason and portfolio.holding(quote.exchange, self._symbol) >= held
        ]
        return max(sellable, key=lambda quote: quote.bid_after_fee, default=None)

    def _bid(self, trade: _OpenTrade, quotes: Sequence[VenueQuote]) -> float | None:
        quote = self._best_to_sell(trade, quotes)
        return quote.book.best_bid() if quote is not None and quote.book is not None else None

    def _exit_order(self, now: float, trade: _OpenTrade, quote: VenueQuote, price: float | None) -> Order | None:
        """An order for what is left; None, with the reason recorded, if the exchange would not take it."""
        quantity = float(trade.position.remaining)
        order = self._order(now, quote, "sell", quantity, price, trade.position.target)
        bid = quote.book.best_bid() if quote.book is not None else None
        fitted = fit_order(order, self._instrument(quote), bid or 0.0)
        if isinstance(fitted, Rejection):
            self._record_blocked(now, trade, quote, fitted)
            trade.too_small = fitted.code in _TOO_SMALL
            return None
        return fitted

    def _order(
        self, now: float, quote: VenueQuote, side: Side, quantity: float, price: float | None, target: Target
    ) -> Order:
        return Order(
            exchange=quote.exchange,
            symbol=self._symbol,
            side=side,
            quantity=quantity,
            placed_us=round(now * 1e6),
            price=price,
            entry_bps=target.entry_bps,
            tp_bps=target.tp_bps,
        )

    def _send(self, now: float, trade: _OpenTrade, quote: VenueQuote, order: Order) -> SentOrder:
        exit_reason = None if order.side == "buy" else trade.exit_reason or "take_profit"
        sent = self._broker.send(now, trade.position, quote, order, exit_reason)
        trade.waiting = sent if sent.waiting is not None else None
        return sent

    def _record_blocked(self, now: float, trade: _OpenTrade, quote: VenueQuote, rejection: Rejection) -> None:
        """Record that the position cannot be sold, once for each reason in a row."""
        if trade.blocked == rejection.code:
            return
        trade.blocked = rejection.code
        position = trade.position
        self._broker.records.write_blocked_exit(now, self._symbol, quote, rejection, position.trade_id, position.target)

    def _close(self, trade: _OpenTrade) -> None:
        self._trade = None
        self._broker.close_position(trade.position, trade.exit_reason or "end")


def _no_book(quotes: Sequence[VenueQuote]) -> Rejection:
    codes = {quote.entry_reason for quote in quotes}
    details = dict.fromkeys(quote.detail for quote in quotes if quote.detail)
    return Rejection(codes.pop() if len(codes) == 1 else "no_exchange", "; ".join(details))


def _zone_rejection(advice: Expectation | None, minimum: float) -> Rejection | None:
    if advice is None or advice.zone_id is None:
        return Rejection("zone_unknown", advice.reason if advice is not None else "there is no table")
    if advice.buy is None or advice.sell is None:
        return Rejection("zone_unusable", f"{advice.zone_id}: {advice.reason}")
    if advice.buy < minimum:
        return Rejection(
            "zone_refused", f"{advice.zone_id} fills {advice.buy:.1%} of entries, {minimum:.1%} are asked for"
        )
    return None
