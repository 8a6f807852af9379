"""Buys where it is cheaper and sells where it is dearer, in two markets of one asset."""

from bookbus.consumers.strategy import Context, Order, OrderUpdate, Strategy
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot


class TwoLegArbitrage(Strategy):
    """Two IOC orders at once when the prices differ by more than `edge_bps`; a leg that is left alone is closed."""

    edge_bps: float = 25.0
    notional: float = 100.0
    rate: float = 1.0
    """Value of the second market's currency in the first one's."""

    def on_start(self, ctx: Context) -> None:
        if len(ctx.symbols) != 2:
            raise ValueError(f"two markets are needed, the run has {', '.join(ctx.symbols)}")
        self.legs: list[Order] = []

    def on_book(self, ctx: Context, book: OrderBookSnapshot) -> None:
        readings = [ctx.reading(symbol) for symbol in ctx.symbols]
        books = [one.snapshot for one in readings if one.snapshot and one.status is BookStatus.LIVE]
        if self.legs or len(books) != 2 or not all(one.bids and one.asks for one in books):
            return
        rates = (1.0, self.rate)
        for cheap, dear in ((0, 1), (1, 0)):
            ask, bid = books[cheap].asks[0][0], books[dear].bids[0][0]
            if bid * rates[dear] > ask * rates[cheap] * (1 + self.edge_bps / 1e4):
                size = self.notional / (ask * rates[cheap])
                self.legs = [
                    ctx.buy(ctx.symbols[cheap], ask, size, "IOC"),
                    ctx.sell(ctx.symbols[dear], bid, size, "IOC"),
                ]
                return

    def on_order(self, ctx: Context, order: Order, update: OrderUpdate) -> None:
        if not all(leg.done for leg in self.legs):
            return
        if len(self.legs) == 2 and (alone := self.legs[0].filled - self.legs[1].filled):
            # One leg filled more than the other: undo the difference where it came from.
            buy, sell = self.legs
            close = ctx.sell(buy.symbol, "market", alone) if alone > 0 else ctx.buy(sell.symbol, "market", -alone)
            self.legs = [close]
        else:
            self.legs = []
