"""Orders and trades for tests, with defaults for every field."""

from bookbus.consumers.paper.fills.model import BookOrder
from bookbus.schemas.snapshot import Side
from bookbus.schemas.trade import Trade

START_US = 1_700_000_000_000_000


def order(
    side: Side = "buy",
    quantity: float = 1.0,
    price: float | None = None,
    *,
    symbol: str = "BTC-USDT",
    placed_us: int = START_US,
    target_price: float | None = None,
    entry_bps: float | None = None,
    tp_bps: float | None = None,
) -> BookOrder:
    """A small order on Binance."""
    return BookOrder(
        exchange="binance",
        symbol=symbol,
        side=side,
        quantity=quantity,
        placed_us=placed_us,
        price=price,
        target_price=target_price,
        entry_bps=entry_bps,
        tp_bps=tp_bps,
    )


def trade(
    price: float, quantity: float, at_us: int, aggressor: Side = "sell", *, exchange_us: int | None = None
) -> Trade:
    """One trade in the market of `order`."""
    happened_us = at_us if exchange_us is None else exchange_us
    return Trade("binance", "BTC-USDT", "BTCUSDT", 1, price, quantity, aggressor, happened_us, at_us)
