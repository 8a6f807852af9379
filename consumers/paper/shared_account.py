"""Several strategies that trade on one account."""

import logging
import math
import traceback
from collections.abc import Callable, Mapping

from bookbus.consumers.paper.engine import EngineContext
from bookbus.consumers.paper.schedule import microseconds
from bookbus.consumers.strategy import Context, Order, OrderUpdate, Strategy
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)


class SharedAccount(Strategy):
    """Passes what it is told to each member, and each answer to the member whose order it is.

    What a member raises ends that member alone: its orders are cancelled. The last one to fail ends the run.
    """

    def __init__(self, members: Mapping[str, Strategy]) -> None:
        self.errors: dict[str, str] = {}
        """What members raised, by name."""
        self.tracebacks: dict[str, str] = {}
        self._members = dict(members)
        self._contexts: dict[str, Context] = {}
        self._ticks = 0

    def on_start(self, ctx: Context) -> None:
        if not isinstance(ctx, EngineContext):
            raise TypeError("strategies share an account of the paper engine alone")
        self._contexts = {name: ctx.of_member(name) for name in self._members}
        for name, member in list(self._members.items()):
            self._call(name, member.on_start)
        intervals = [microseconds(member.timer) for member in self._members.values() if member.timer > 0]
        self.timer = math.gcd(*intervals) / 1e6

    def on_book(self, ctx: Context, book: OrderBookSnapshot) -> None:
        for name, member in list(self._members.items()):
            self._call(name, member.on_book, book)

    def on_trade(self, ctx: Context, trade: Trade) -> None:
        for name, member in list(self._members.items()):
            self._call(name, member.on_trade, trade)

    def on_timer(self, ctx: Context) -> None:
        self._ticks += 1
        passed = self._ticks * microseconds(self.timer)
        for name, member in list(self._members.items()):
            if member.timer > 0 and passed % microseconds(member.timer) == 0:
                self._call(name, member.on_timer)

    def on_order(self, ctx: Context, order: Order, update: OrderUpdate) -> None:
        name = order.id.rpartition("-")[0]
        if (member := self._members.get(name)) is not None:
            self._call(name, member.on_order, order, update)

    def on_stop(self, ctx: Context) -> None:
        for name, member in list(self._members.items()):
            self._call(name, member.on_stop)

    def _call(self, name: str, method: Callable[..., None], *arguments: object) -> None:
        context = self._contexts[name]
        try:
            method(context, *arguments)
        except (Exception, SystemExit) as error:
            # Code of the user: whatever it raises ends this member alone.
            self.errors[name], self.tracebacks[name] = f"{type(error).__name__}: {error}", traceback.format_exc()
            logger.error("strategy %s ended: %s\n%s", name, self.errors[name], self.tracebacks[name])
            del self._members[name]
            for order in context.open_orders:
                context.cancel(order)
            if not self._members:
                raise
