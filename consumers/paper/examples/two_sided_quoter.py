"""Quotes both sides of the market around the mid price, and leans against what it holds."""

from bookbus.consumers.strategy import Context, Order, Strategy
from bookbus.schemas.snapshot import BookStatus, Side

SIDES: tuple[tuple[Side, int], ...] = (("buy", -1), ("sell", 1))


class TwoSidedQuoter(Strategy):
    """One bid and one ask in each market, moved when they are more than `tolerance_bps` from where they should be."""

    timer: float = 0.5
    half_spread_bps: float = 5.0
    tolerance_bps: float = 2.0
    notional: float = 100.0
    lean_bps: float = 2.0
    """How far both quotes move for each order that was bought more than sold."""

    def on_start(self, ctx: Context) -> None:
        self.quotes: dict[tuple[str, Side], Order] = {}
        self.held = {symbol: ctx.position(symbol) for symbol in ctx.symbols}

    def on_timer(self, ctx: Context) -> None:
        for symbol in ctx.symbols:
            reading = ctx.reading(symbol)
            book = reading.snapshot if reading.status is BookStatus.LIVE else None
            mid = book.mid() if book else None
            for side, sign in SIDES:
                if book is None or mid is None:
                    self.quote(ctx, symbol, side, None, 0.0)
                    continue
                size = self.notional / mid
                lean = self.lean_bps * (ctx.position(symbol) - self.held[symbol]) / size
                price = mid * (1 + (sign * self.half_spread_bps - lean) / 1e4)
                # Never beyond the best price of its own side.
                price = min(price, book.bids[0][0]) if side == "buy" else max(price, book.asks[0][0])
                self.quote(ctx, symbol, side, price, size)

    def quote(self, ctx: Context, symbol: str, side: Side, price: float | None, size: float) -> None:
        order = self.quotes.get((symbol, side))
        if order is not None and not order.done:
            if price is None or abs((order.price or price) / price - 1) > self.tolerance_bps / 1e4:
                ctx.cancel(order)
        elif price is not None:
            enough = ctx.cash(symbol) >= size * price if side == "buy" else ctx.position(symbol) >= size
            if enough:
                send = ctx.buy if side == "buy" else ctx.sell
                self.quotes[symbol, side] = send(symbol, price, size, post_only=True)
