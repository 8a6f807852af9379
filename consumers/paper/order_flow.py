"""Orders of one trade, from sending them to the line that says what became of them."""

from collections.abc import Sequence

from bookbus.consumers.paper.broker import Entry, RunContext, waiting_cost
from bookbus.consumers.paper.fills.model import Fill, TapeEvent
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.open_trade import OpenTrade, SentOrder

_CANCEL_LIMIT = 1.0
"""Seconds after which a cancelled order is done even if its market shows nothing any more."""


def take(context: RunContext, now: float, trade: OpenTrade, entry: Entry) -> Fill:
    """Send an order that does not wait; it is done at once."""
    book = entry.quote.book
    if book is None:
        raise ValueError("an order is decided on a book")
    touch = (book.asks if entry.order.side == "buy" else book.bids)[0][0]
    sent = _sent(context, trade, entry, touch)
    fill = context.execution.taker.fill(entry.order, book)
    context.take_fill(now, trade, sent, fill, book.mid())
    context.write_order(now, trade, sent, fill)
    return fill


def wait(context: RunContext, trade: OpenTrade, entry: Entry) -> None:
    """Send an order that waits for the market."""
    book, price = entry.quote.book, entry.order.price
    if book is None or price is None:
        raise ValueError("a waiting order has a price, and is decided on a book")
    sent = _sent(context, trade, entry, price)
    sent.waiting = context.execution.wait(entry.order, book)
    trade.sent = sent
    if entry.order.side == "buy":
        context.reserved[entry.quote.exchange] += waiting_cost(entry)


def receive(context: RunContext, now: float, trade: OpenTrade, event: TapeEvent, quotes: Sequence[VenueQuote]) -> None:
    """Let the waiting order see what happened on its exchange; `quotes` are the books as they are now."""
    sent = trade.sent
    if sent is None or sent.waiting is None or event.exchange != sent.order.exchange:
        return
    if (fill := sent.waiting.receive(event)) is not None:
        live = [one.book for one in quotes if one.exchange == event.exchange and not one.obstacle and one.book]
        context.take_fill(now, trade, sent, fill, live[0].mid() if live else None)


def cancel(now: float, sent: SentOrder) -> None:
    """Take the waiting order back; until that has taken effect it may still be filled."""
    if sent.cancelled_at is None and sent.waiting is not None:
        sent.waiting.cancel(round(now * 1e6))
        sent.cancelled_at = now


def is_done(now: float, sent: SentOrder) -> bool:
    """Whether the waiting order gets nothing more."""
    gone = sent.cancelled_at is not None and now >= sent.cancelled_at + _CANCEL_LIMIT
    return gone or (sent.waiting is not None and sent.waiting.done)


def finish(context: RunContext, now: float, trade: OpenTrade, sent: SentOrder) -> None:
    """Put on record what became of the waiting order."""
    if sent.waiting is None:
        raise ValueError("only a waiting order has to be finished")
    if sent.order.side == "buy":
        context.reserved[sent.quote.exchange] -= waiting_cost(Entry(sent.quote, sent.order))
    context.write_order(now, trade, sent, sent.waiting.total())
    trade.sent = None


def _sent(context: RunContext, trade: OpenTrade, entry: Entry, target_price: float) -> SentOrder:
    context.record.used(entry.quote)
    reason = None if entry.order.side == "buy" else trade.exit_reason or "take_profit"
    return SentOrder(trade.next_order_id(), entry.order, entry.quote, target_price, reason)
