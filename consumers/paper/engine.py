"""The paper exchange of one strategy: its account, the life of its orders, and the matching against books and trades.

An order meets the books as they are when it arrives. It takes what they display, each quantity once; what is left
waits in the queue of its price and is filled by trades, or by an opposite best price that reaches it.
"""

import heapq
import math
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count
from typing import Literal, NamedTuple

import msgspec

from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.fills.model import (
    BookOrder,
    BookWalk,
    FillReason,
    Liquidity,
    TapeEvent,
    opposite_side,
    reject_reason,
)
from bookbus.consumers.paper.fills.queue import QueuePosition, shown
from bookbus.consumers.paper.latency import Latency, Leg
from bookbus.consumers.paper.order_rules import PriceUnit, Rejection, fit_order
from bookbus.consumers.paper.performance import EquityCurve, Ledger
from bookbus.consumers.paper.schedule import microseconds
from bookbus.consumers.reading import Reading
from bookbus.consumers.strategy import Order, OrderEvent, OrderUpdate, Strategy, TimeInForce
from bookbus.schemas.instruments import Instrument, SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade

_ZERO = Fraction()
_MOST_ACTIONS = 10_000
Asset = tuple[str, str]
"""Exchange and asset."""

ReadBook = Callable[[str, str, int], Reading]
"""Returns the reading of an exchange's symbol at a time in microseconds."""


@dataclass(frozen=True, slots=True)
class MarketRules:
    """One market and what trading there costs. `name` is the symbol that strategies use.

    With `fee_in_base`, the fee of a buy is charged in the base asset.
    """

    name: str
    instrument: Instrument
    maker_bps: float
    taker_bps: float
    fee_in_base: bool = False


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the order file: an order was sent, or something happened to it on the exchange."""

    time_us: int
    strategy: str
    order_id: str
    symbol: str
    side: Side
    time_in_force: TimeInForce
    post_only: bool
    event: OrderEvent | Literal["sent"]
    order_quantity: float
    order_price: float | None
    filled: float
    quantity: float
    price: float | None
    fee: float
    fee_asset: str
    liquidity: Liquidity | None
    reason: str
    detail: str
    mid: float | None


@dataclass(slots=True)
class _Market:
    """`crossed` is the quantity of each side's fills by crossing books, whose trades fill nothing again."""

    rules: MarketRules
    book: OrderBookSnapshot | None = None
    mid: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    unit: PriceUnit = field(default_factory=PriceUnit)
    traded: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))
    """Quantity traded at each price since the newest book, which does not reflect it."""
    waiting: list["_Working"] = field(default_factory=list)
    crossed: dict[Side, "_Crossed"] = field(default_factory=dict)

    @property
    def exchange(self) -> str:
        return self.rules.instrument.exchange

    @property
    def symbol(self) -> str:
        return self.rules.instrument.symbol

    @property
    def pair(self) -> tuple[str, str]:
        return self.rules.instrument.base, self.rules.instrument.quote


@dataclass(slots=True)
class _Crossed:
    quantity: float = 0.0
    until_us: int | None = None
    """Exchange time after which a trade is a new one; None while the books still cross."""


@dataclass(slots=True, eq=False)
class _Working:
    """An order as the exchange knows it."""

    order: Order
    market: _Market
    quantity: Fraction
    price: float | None
    rejection: Rejection | None = None
    arrived_us: int = 0
    number: int = 0
    """Rank in time among orders at a price."""
    filled: Fraction = _ZERO
    value: Fraction = _ZERO
    reserved: Fraction = _ZERO
    position: QueuePosition | None = None
    done: bool = False

    @property
    def side(self) -> Side:
        return self.order.side

    @property
    def remaining(self) -> Fraction:
        return self.quantity - self.filled

    def book_order(self) -> BookOrder:
        """What is left of it, as fill models take it."""
        return BookOrder(
            exchange=self.market.exchange,
            symbol=self.market.symbol,
            side=self.side,
            quantity=float(self.remaining),
            placed_us=self.arrived_us,
            price=self.price,
        )


class _Due(NamedTuple):
    """Something planned; `answer` if it tells the strategy what happened. The number is unique, so only the first two
    are compared."""

    at_us: int
    number: int
    action: Callable[[], None]
    answer: bool


class Engine:
    """One strategy on paper, a world of its own. Call `start`, then `advance` and `receive` in the order of time.

    Times are microseconds since 1970 of the caller's clock, which must not go back. An exception of the strategy sets
    `error` and ends it; nothing is raised.
    """

    def __init__(
        self,
        name: str,
        strategy: Strategy,
        markets: Sequence[MarketRules],
        read: ReadBook,
        latency: Latency,
        record: Callable[[OrderRecord], None],
        *,
        sample_seconds: float = 10.0,
        cancellation_share: float = 0.0,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        """`clock_us` is the time in a live run, so that what the strategy itself computes delays its orders."""
        self.name = name
        self.strategy = strategy
        self.now_us = 0
        self.error = ""
        self.traceback = ""
        self.stopped = False
        self._ending = False
        self.events: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        """Reasons of orders that were rejected, expired or not cancelled."""
        self.trades = 0
        self.curve = EquityCurve(sample_seconds)
        self._read = read
        self._latency = latency
        self._record = record
        self._share = cancellation_share
        self._clock_us = clock_us
        self._sample_us = microseconds(sample_seconds)
        self._walk = BookWalk()
        self._markets = {rules.name: _Market(rules) for rules in markets}
        self._by_event = {(market.exchange, market.symbol): market for market in self._markets.values()}
        self._same_pair = {
            name: [one for one in self._markets.values() if one.pair == market.pair]
            for name, market in self._markets.items()
        }
        self._balances: defaultdict[Asset, Fraction] = defaultdict(Fraction)
        self._deposits: defaultdict[Asset, Fraction] = defaultdict(Fraction)
        self._reserved: defaultdict[Asset, Fraction] = defaultdict(Fraction)
        self._known: defaultdict[Asset, Fraction] = defaultdict(Fraction)
        """Balances as the strategy knows them."""
        self._working: dict[Order, _Working] = {}
        self._due: list[_Due] = []
        self._numbers = count(1)
        self._order_numbers = count(1)
        self._last_due: dict[tuple[str, str], int] = {}
        self._context = EngineContext(self)

    @property
    def next_due_us(self) -> int | None:
        """When `advance` has something to do; None if nothing is planned."""
        return self._due[0].at_us if self._due else None

    @property
    def markets(self) -> Sequence[MarketRules]:
        return [market.rules for market in self._markets.values()]

    def deposit(self, exchange: str, asset: str, amount: float | Fraction) -> None:
        """Add to the account, before the start; it does not count as profit."""
        self._balances[exchange, asset] += exact(amount)
        self._known[exchange, asset] += exact(amount)
        self._deposits[exchange, asset] += exact(amount)

    def balances(self) -> dict[str, dict[str, float]]:
        """By exchange and asset."""
        found: dict[str, dict[str, float]] = {}
        for (exchange, asset), amount in sorted(self._balances.items()):
            found.setdefault(exchange, {})[asset] = float(amount)
        return found

    def balance(self, exchange: str, asset: str) -> Fraction:
        return self._balances.get((exchange, asset), _ZERO)

    def ledger(self, name: str) -> Ledger:
        return self._markets[name].ledger

    def mark(self, name: str) -> float | None:
        """The price at which a position is valued: the last mid of a live book, averaged over the exchanges that have
        the same pair, so that opposite positions there are worth nothing."""
        mid_prices = [one.mid for one in self._same_pair[name] if one.mid is not None]
        return math.fsum(mid_prices) / len(mid_prices) if mid_prices else None

    def changes(self) -> dict[str, Fraction]:
        """By asset, what all exchanges hold more than was deposited."""
        found: dict[str, Fraction] = {}
        for (exchange, asset), amount in sorted(self._balances.items()):
            found[asset] = found.get(asset, _ZERO) + amount - self._deposits[exchange, asset]
        return found

    def pnl(self) -> dict[str, Fraction]:
        """Profit after fees by quote asset, positions at their marks."""
        found: dict[str, Fraction] = {}
        for market in self._markets.values():
            currency = market.rules.instrument.quote
            found[currency] = found.get(currency, _ZERO) + market.ledger.pnl(self.mark(market.rules.name))
        return found

    def start(self, now_us: int, books: Sequence[OrderBookSnapshot]) -> None:
        """Begin with these books."""
        self.now_us = now_us
        for book in books:
            market = self._by_event[book.exchange, book.symbol]
            self._set_book(market, book)
        self._sample(now_us)
        self._call(self.strategy.on_start, self._context)
        if not self.stopped and (interval := microseconds(self.strategy.timer)) > 0:
            self._plan(now_us + interval, lambda: self._tick(now_us + interval, interval))

    def advance(self, now_us: int) -> None:
        """Do what is due up to `now_us`, in the order of time."""
        if not self.stopped:
            self._run_due(now_us)
        if not self.stopped:
            self.now_us = max(self.now_us, now_us)

    def _run_due(self, until_us: int) -> None:
        moment, actions = -1, 0
        while self._due and self._due[0].at_us <= until_us:
            due = heapq.heappop(self._due)
            self.now_us = max(self.now_us, due.at_us)
            moment, actions = self.now_us, actions + 1 if self.now_us == moment else 0
            due.action()
            if actions > _MOST_ACTIONS:
                self._crash(f"more than {_MOST_ACTIONS} orders and answers at one moment: they cause each other", "")

    def receive(self, now_us: int, event: TapeEvent, notify: bool = True) -> None:
        """Show an event of a market to the orders there, then, if `notify`, to the strategy."""
        self.advance(now_us)
        market = self._by_event.get((event.exchange, event.symbol))
        if market is None or self.stopped:
            return
        if isinstance(event, Trade):
            self.trades += 1
            self._see_trade(market, event)
            self._run_due(now_us)
            if notify:
                self._call(self.strategy.on_trade, self._context, event)
        else:
            self._see_book(market, event)
            self._run_due(now_us)
            if notify:
                self._call(self.strategy.on_book, self._context, event)
        self._run_due(now_us)

    def stop(self, now_us: int) -> None:
        """End the run: cancel what is open, let the strategy act once more on the last books."""
        self.advance(now_us)
        if not self.stopped:
            self._latency, self._ending = _NO_LATENCY, True
            self._last_due.clear()
            answers = sorted(due for due in self._due if due.answer)
            self._due.clear()
            for due in answers:
                due.action()
            self._cancel_all("end")
            self._run_due(self.now_us)
            self._call(self.strategy.on_stop, self._context)
            self._run_due(self.now_us)
        if not self.stopped:
            self.stopped = True
            self._cancel_all("end")
            self._sample_now()
        self._due.clear()

    # What the context does.

    def market(self, symbol: str) -> _Market:
        """Raises SymbolError for an unknown name."""
        if (market := self._markets.get(symbol)) is not None:
            return market
        exchange, _, name = symbol.rpartition(":")
        found = [one for one in self._markets.values() if one.symbol == name and exchange in ("", one.exchange)]
        if len(found) != 1:
            raise SymbolError(f"no symbol {symbol!r} in this run; it has {', '.join(self._markets)}")
        return found[0]

    def reading(self, market: _Market) -> Reading:
        return self._read(market.exchange, market.symbol, self.now_us)

    def known(self, exchange: str, asset: str) -> float:
        return float(self._known.get((exchange, asset), _ZERO))

    def open_orders(self) -> list[Order]:
        return [order for order in self._working if not order.done]

    def send(
        self,
        side: Side,
        symbol: str,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce,
        post_only: bool,
        owner: str,
    ) -> Order:
        market = self.market(symbol)
        limit = None if isinstance(price, str) else float(price)
        if isinstance(price, str) and price != "market":
            raise ValueError(f"a price is a number or 'market', not {price!r}")
        if time_in_force not in ("GTC", "IOC", "FOK"):
            raise ValueError(f"time_in_force is GTC, IOC or FOK, not {time_in_force!r}")
        if post_only and (limit is None or time_in_force != "GTC"):
            raise ValueError("a post-only order has a limit price and stays (GTC)")
        fitted = self._fit(market, side, quantity, limit)
        rejection = fitted if isinstance(fitted, Rejection) else None
        if not isinstance(fitted, Rejection):
            quantity, limit = fitted.quantity, fitted.price
        number = next(self._order_numbers)
        order = Order(
            f"{owner}-{number}", market.rules.name, side, quantity, limit, time_in_force, post_only, self.now_us
        )
        # The numbers of a rejected order may be none at all: they are not used.
        working = _Working(
            order, market, _ZERO if rejection else exact(quantity), None if rejection else limit, rejection
        )
        self._working[order] = working
        self._write(working, "sent")
        self._plan(self._later("entry", market.exchange), lambda: self._arrive(working))
        return order

    def cancel(self, order: Order) -> None:
        working = self._working.get(order)
        if working is not None and not order.done:
            self._plan(self._later("cancel", working.market.exchange), lambda: self._cancel(working))

    def amend(self, order: Order, price: float | None, quantity: float | None) -> None:
        if order.price is None:
            raise ValueError("a market order cannot be amended")
        working = self._working.get(order)
        if working is not None and not order.done:
            self._plan(self._later("cancel", working.market.exchange), lambda: self._amend(working, price, quantity))

    # The exchange's side.

    def _fit(self, market: _Market, side: Side, quantity: float, price: float | None) -> BookOrder | Rejection:
        """The order by the exchange's rules."""
        if market.book is not None:
            market.unit.observe(market.book)
        instrument = market.rules.instrument
        if instrument.tick is None:
            instrument = replace(instrument, tick=market.unit.tick)
        try:
            order = BookOrder(
                exchange=market.exchange,
                symbol=market.symbol,
                side=side,
                quantity=quantity,
                placed_us=self.now_us,
                price=price,
            )
        except ValueError as error:
            return Rejection("invalid", str(error))
        levels = opposite_side(side, market.book) if market.book is not None else ()
        touch = levels[0][0] if levels else market.mid or 0.0
        return fit_order(order, instrument, touch)

    def _arrive(self, working: _Working) -> None:
        working.arrived_us, working.number = self.now_us, next(self._numbers)
        rejection = working.rejection or self._entry_rejection(working)
        if rejection is not None:
            self._end(working, "rejected", rejection)
            return
        self._reserve(working)
        self._report(working, "accepted")
        self._enter(working)

    def _entry_rejection(self, working: _Working) -> Rejection | None:
        """Why the exchange does not accept the order now."""
        order, market = working.order, working.market
        reading = self.reading(market)
        live = self._live_book(market, reading)
        if live is None:
            if working.price is None or order.time_in_force != "GTC" or order.post_only:
                return Rejection("book_not_live", reading.reason or "the book is out of sync")
        elif order.post_only and reject_reason(working.book_order(), live) is None:
            return Rejection("would_take", "a post-only order would take")
        asset, needed = self._needed(working, live)
        free = self._balances[asset] - self._reserved[asset]
        if needed > free:
            detail = f"{float(free):g} {asset[1]} free on {asset[0]}, {float(needed):g} needed"
            return Rejection("no_balance", detail)
        return None

    def _needed(self, working: _Working, live: OrderBookSnapshot | None) -> tuple[Asset, Fraction]:
        """What the rest of the order can cost at most."""
        rules = working.market.rules
        exchange = working.market.exchange
        if working.side == "sell":
            return (exchange, rules.instrument.base), working.remaining
        asset = exchange, rules.instrument.quote
        if working.price is not None:
            value = working.remaining * exact(working.price)
        elif live is not None:
            fill = self._walk.preview(working.book_order(), live)
            value = exact(fill.quantity) * exact(fill.price) if fill.price is not None else _ZERO
        else:
            value = _ZERO
        worst = Fraction() if rules.fee_in_base else exact(max(rules.maker_bps, rules.taker_bps, 0.0)) / 10_000
        return asset, value * (1 + worst)

    def _reserve(self, working: _Working) -> None:
        """Set aside what the rest of the order can cost; nothing for one that is done."""
        asset, needed = self._needed(working, None)
        needed = _ZERO if working.done else needed
        self._reserved[asset] += needed - working.reserved
        working.reserved = needed

    def _enter(self, working: _Working) -> None:
        """Take what the book displays, then wait or expire."""
        order, market = working.order, working.market
        live = self._live_book(market, self.reading(market))
        # Orders of one account never trade with each other: it takes no further than its own waiting orders.
        wanted = working.book_order()
        own = [other.price for other in market.waiting if other.side != working.side and other.price is not None]
        own = [price for price in own if wanted.reaches(price)]
        if own:
            wanted = replace(wanted, price=min(own) if working.side == "buy" else max(own))
        reason = FillReason.NOT_MARKETABLE
        if live is not None:
            fill = self._walk.preview(wanted, live)
            reason = fill.reason
            if order.time_in_force == "FOK" and fill.reason is not FillReason.FILLED:
                self._end(working, "expired", Rejection("not_whole", f"the book displays {fill.quantity:g} of it"))
                return
            if fill.price is not None:
                fill = self._walk.fill(wanted, live)
                self._fill(working, fill.quantity, fill.price or 0.0, "taker")
        if working.done:
            return
        if own:
            self._end(working, "expired", Rejection("self_trade", "it would trade with an order of this account"))
            return
        if working.price is None or order.time_in_force != "GTC":
            detail = "more than the published levels hold" if working.price is None else ""
            self._end(working, "expired", Rejection(str(reason), detail))
            return
        rest = working.book_order()
        position = QueuePosition(shown(rest, live) if live is not None else None, self._share)
        position.trade(market.traded.get(working.price, 0.0), in_newest_book=False)
        working.position = position
        market.waiting.append(working)
        # The price that is filled first comes first.
        market.waiting.sort(key=lambda one: ((-1 if one.side == "buy" else 1) * (one.price or 0.0), one.number))

    def _set_book(self, market: _Market, book: OrderBookSnapshot) -> None:
        market.book = book
        market.traded.clear()
        if book.state == "live":
            self._walk.observe(book)
            market.mid = book.mid() or market.mid

    def _see_book(self, market: _Market, book: OrderBookSnapshot) -> None:
        self._set_book(market, book)
        if not market.waiting and not market.crossed:
            return
        live = self._live_book(market, self.reading(market))
        for working in market.waiting:
            if working.position is not None:
                working.position.book(shown(working.book_order(), live) if live is not None else None)
        if live is None:
            return
        crossing: set[Side] = set()
        for working in list(market.waiting):
            levels = opposite_side(working.side, live)
            wanted = working.book_order()
            if not levels or working.position is None or not wanted.reaches(levels[0][0]):
                continue
            crossing.add(working.side)
            working.position.clear()
            fill = self._walk.fill(wanted, live)
            if fill.quantity > 0:
                crossed = market.crossed.setdefault(working.side, _Crossed())
                crossed.quantity += fill.quantity
                crossed.until_us = None
                self._fill(working, fill.quantity, working.price or 0.0, "maker")
        for side, crossed in market.crossed.items():
            if side not in crossing and crossed.until_us is None:
                crossed.until_us = _exchange_us(live)

    def _see_trade(self, market: _Market, trade: Trade) -> None:
        book = market.book
        in_newest_book = book is not None and book.exchange_us is not None and trade.exchange_us <= book.exchange_us
        if not in_newest_book:
            market.traded[trade.price] += trade.quantity
        if not market.waiting:
            return
        live = self._live_book(market, self.reading(market)) is not None
        taken: dict[Side, float] = {}
        for working in list(market.waiting):
            position, side = working.position, working.side
            if position is None or not _meets(working, trade):
                continue
            left = position.meet(trade.quantity, trade.price != working.price, in_newest_book)
            # What happened before the order arrived moves its queue alone; a book that is not live fills nothing.
            if not live or trade.received_us < working.arrived_us:
                continue
            if side not in taken:
                taken[side] = self._already_filled(market, side, trade)
            quantity = min(float(working.remaining), left - taken[side])
            if quantity > 0:
                taken[side] += quantity
                self._fill(working, quantity, working.price or 0.0, "maker")

    def _already_filled(self, market: _Market, side: Side, trade: Trade) -> float:
        """The part of a trade that filled orders before: a level that was taken, or a best price that reached them."""
        if trade.aggressor == side:
            # It takes from the side that our orders take from.
            return min(self._walk.taken(market.exchange, market.symbol, side, trade.price), trade.quantity)
        crossed = market.crossed.get(side)
        if crossed is None:
            return 0.0
        if crossed.until_us is not None and trade.exchange_us > crossed.until_us:
            del market.crossed[side]
            return 0.0
        part = min(crossed.quantity, trade.quantity)
        crossed.quantity -= part
        return part

    def _fill(self, working: _Working, amount: float, price: float, liquidity: Liquidity) -> None:
        market, rules = working.market, working.market.rules
        instrument, exchange = rules.instrument, market.exchange
        remaining = working.remaining
        # Rounding may leave a tiny rest, or go beyond it.
        quantity = remaining if amount >= float(remaining) else min(exact(amount), remaining)
        value = quantity * exact(price)
        rate = exact(rules.maker_bps if liquidity == "maker" else rules.taker_bps) / 10_000
        in_base = rules.fee_in_base and working.side == "buy"
        base_fee, quote_fee = (quantity * rate, _ZERO) if in_base else (_ZERO, value * rate)
        sign = 1 if working.side == "buy" else -1
        changes = {
            (exchange, instrument.base): sign * quantity - base_fee,
            (exchange, instrument.quote): -sign * value - quote_fee,
        }
        for asset, change in changes.items():
            self._balances[asset] += change
        market.ledger.apply(working.side, quantity, price, quote_fee, base_fee, liquidity)
        working.filled += quantity
        working.value += value
        working.done = working.remaining <= 0
        self._reserve(working)
        if working.done and working in market.waiting:
            market.waiting.remove(working)
        fee, fee_asset = (base_fee, instrument.base) if in_base else (quote_fee, instrument.quote)
        self._report(
            working,
            "filled" if working.done else "partly_filled",
            changes=changes,
            quantity=float(quantity),
            price=price,
            fee=float(fee),
            fee_asset=fee_asset,
            liquidity=liquidity,
        )

    def _cancel(self, working: _Working) -> None:
        if working.done:
            self._report(working, "cancel_refused", Rejection("too_late", "the order was done before"))
        else:
            self._end(working, "cancelled", Rejection("asked", ""))

    def _amend(self, working: _Working, price: float | None, quantity: float | None) -> None:
        market = working.market
        if working.done:
            self._report(working, "cancel_refused", Rejection("too_late", "the order was done before"))
            return
        wanted = float(working.quantity) if quantity is None else quantity
        fitted = self._fit(market, working.side, wanted, working.price if price is None else price)
        if isinstance(fitted, Rejection):
            self._report(working, "cancel_refused", fitted)
            return
        if exact(fitted.quantity) <= working.filled:
            self._end(working, "cancelled", Rejection("amended", "no more than what is filled"))
            return
        before = (working.quantity, working.price)
        keeps_place = fitted.price == working.price and exact(fitted.quantity) <= working.quantity
        working.quantity, working.price = exact(fitted.quantity), fitted.price
        if keeps_place:
            self._reserve(working)
            self._report(working, "amended")
            return
        reserved = self._unreserve(working)
        if (rejection := self._entry_rejection(working)) is not None:
            working.quantity, working.price = before
            self._restore(working, reserved)
            self._report(working, "cancel_refused", rejection)
            return
        market.waiting.remove(working)
        working.arrived_us, working.number, working.position = self.now_us, next(self._numbers), None
        self._reserve(working)
        self._report(working, "amended")
        self._enter(working)

    def _unreserve(self, working: _Working) -> Fraction:
        asset, _ = self._needed(working, None)
        reserved, working.reserved = working.reserved, _ZERO
        self._reserved[asset] -= reserved
        return reserved

    def _restore(self, working: _Working, reserved: Fraction) -> None:
        asset, _ = self._needed(working, None)
        self._reserved[asset] += reserved
        working.reserved = reserved

    def _end(self, working: _Working, event: Literal["rejected", "cancelled", "expired"], rejection: Rejection) -> None:
        working.done = True
        if working in working.market.waiting:
            working.market.waiting.remove(working)
        self._unreserve(working)
        self._report(working, event, rejection)

    def _cancel_all(self, reason: str) -> None:
        """Cancel at once what is open or on its way."""
        for working in list(self._working.values()):
            if not working.done:
                self._end(working, "cancelled", Rejection(reason, ""))

    def _live_book(self, market: _Market, reading: Reading) -> OrderBookSnapshot | None:
        book = market.book
        return book if book is not None and book.state == "live" and reading.status is BookStatus.LIVE else None

    # Answers, timers, samples.

    def _report(
        self,
        working: _Working,
        event: OrderEvent,
        rejection: Rejection | None = None,
        *,
        changes: Mapping[Asset, Fraction] = {},
        quantity: float = 0.0,
        price: float | None = None,
        fee: float = 0.0,
        fee_asset: str = "",
        liquidity: Liquidity | None = None,
    ) -> None:
        update = OrderUpdate(
            event=event,
            time_us=self.now_us,
            order_quantity=working.order.quantity if working.rejection is not None else float(working.quantity),
            order_price=working.order.price if working.rejection is not None else working.price,
            filled=float(working.filled),
            average_price=float(working.value / working.filled) if working.filled else None,
            quantity=quantity,
            price=price,
            fee=fee,
            fee_asset=fee_asset,
            liquidity=liquidity,
            reason=rejection.code if rejection is not None else "",
            detail=rejection.detail if rejection is not None else "",
        )
        self.events[event] += 1
        if rejection is not None and event != "cancelled":
            self.rejections[rejection.code] += 1
        self._write(working, event, update)
        if self.stopped:
            return
        self._plan(
            self._later("response", working.market.exchange), lambda: self._deliver(working, update, changes), True
        )

    def _deliver(self, working: _Working, update: OrderUpdate, changes: Mapping[Asset, Fraction]) -> None:
        order = working.order
        for asset, change in changes.items():
            self._known[asset] += change
        order.quantity, order.price = update.order_quantity, update.order_price
        order.filled, order.average_price = update.filled, update.average_price
        order.fee, order.fee_asset = order.fee + update.fee, update.fee_asset or order.fee_asset
        match update.event:
            case "accepted":
                order.status = "open"
            case "filled" | "cancelled" | "rejected" | "expired":
                order.status = update.event
                self._working.pop(order, None)
        self._call(self.strategy.on_order, self._context, order, update)

    def _write(self, working: _Working, event: OrderEvent | Literal["sent"], update: OrderUpdate | None = None) -> None:
        order = working.order
        self._record(
            OrderRecord(
                time_us=self.now_us,
                strategy=order.id.rpartition("-")[0],
                order_id=order.id,
                symbol=order.symbol,
                side=order.side,
                time_in_force=order.time_in_force,
                post_only=order.post_only,
                event=event,
                order_quantity=update.order_quantity if update is not None else order.quantity,
                order_price=update.order_price if update is not None else order.price,
                filled=float(working.filled),
                quantity=update.quantity if update is not None else 0.0,
                price=update.price if update is not None else None,
                fee=update.fee if update is not None else 0.0,
                fee_asset=update.fee_asset if update is not None else "",
                liquidity=update.liquidity if update is not None else None,
                reason=update.reason if update is not None else "",
                detail=update.detail if update is not None else "",
                mid=working.market.mid,
            )
        )

    def _tick(self, due_us: int, interval_us: int) -> None:
        self._call(self.strategy.on_timer, self._context)
        if not self.stopped:
            self._plan(due_us + interval_us, lambda: self._tick(due_us + interval_us, interval_us))

    def _crash(self, error: str, text: str) -> None:
        self.error, self.traceback = error, text
        self.stopped = True
        self._due.clear()
        self._cancel_all("crashed")
        self._sample_now()

    def _sample(self, due_us: int) -> None:
        self._sample_now()
        self._plan(due_us + self._sample_us, lambda: self._sample(due_us + self._sample_us))

    def _sample_now(self) -> None:
        exposure = {
            name: float(market.ledger.position * exact(mark)) if (mark := self.mark(name)) is not None else 0.0
            for name, market in self._markets.items()
        }
        pnl = {currency: float(amount) for currency, amount in self.pnl().items()}
        self.curve.add(self.now_us / 1e6, pnl, exposure)

    def _plan(self, at_us: int, action: Callable[[], None], answer: bool = False) -> None:
        heapq.heappush(self._due, _Due(at_us, next(self._numbers), action, answer))

    def _later(self, leg: Leg, exchange: str) -> int:
        """When it arrives; nothing overtakes what was sent before it the same way."""
        way = exchange, "response" if leg == "response" else "request"
        sent_us = self.now_us
        if leg != "response" and self._clock_us is not None and not self._ending:
            sent_us = max(sent_us, self._clock_us())
        due = max(sent_us + self._latency.draw(exchange, leg), self._last_due.get(way, 0))
        self._last_due[way] = due
        return due

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        if self.stopped:
            return
        try:
            method(*arguments)
        except (Exception, SystemExit) as error:
            # Code of the user: whatever it raises ends this strategy alone.
            self._crash(f"{type(error).__name__}: {error}", traceback.format_exc())


class EngineContext:
    """What a strategy may use of its engine. `owner` names its orders where several strategies share the account."""

    def __init__(self, engine: Engine, owner: str = "") -> None:
        self._engine = engine
        self._owner = owner or engine.name

    def of_member(self, name: str) -> "EngineContext":
        """The context of one of several strategies that share the account."""
        return EngineContext(self._engine, name)

    @property
    def now(self) -> float:
        return self._engine.now_us / 1e6

    @property
    def symbols(self) -> Sequence[str]:
        return [rules.name for rules in self._engine.markets]

    @property
    def open_orders(self) -> list[Order]:
        return [order for order in self._engine.open_orders() if order.id.rpartition("-")[0] == self._owner]

    def reading(self, symbol: str) -> Reading:
        return self._engine.reading(self._engine.market(symbol))

    def symbol_of(self, event: OrderBookSnapshot | Trade) -> str:
        return self._engine.market(f"{event.exchange}:{event.symbol}").rules.name

    def position(self, symbol: str) -> float:
        market = self._engine.market(symbol)
        return self._engine.known(market.exchange, market.rules.instrument.base)

    def cash(self, symbol: str) -> float:
        market = self._engine.market(symbol)
        return self._engine.known(market.exchange, market.rules.instrument.quote)

    def buy(
        self,
        symbol: str,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        return self._engine.send("buy", symbol, price, quantity, time_in_force, post_only, self._owner)

    def sell(
        self,
        symbol: str,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        return self._engine.send("sell", symbol, price, quantity, time_in_force, post_only, self._owner)

    def cancel(self, order: Order) -> None:
        self._engine.cancel(order)

    def amend(self, order: Order, *, price: float | None = None, quantity: float | None = None) -> None:
        self._engine.amend(order, price, quantity)


_NO_LATENCY = Latency({("", leg): lambda _: 0 for leg in ("entry", "cancel", "response")})


def _meets(working: _Working, trade: Trade) -> bool:
    """Whether a trade at this price and side can fill the order."""
    if working.price is None:
        return False
    if trade.price == working.price:
        return trade.aggressor != working.side
    return trade.price < working.price if working.side == "buy" else trade.price > working.price


def _exchange_us(book: OrderBookSnapshot) -> int:
    return book.received_us if book.exchange_us is None else book.exchange_us
