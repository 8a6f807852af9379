"""Values for tests, with defaults for every field."""

from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, StoredState


def book(
    symbol: str = "BTC-USDT",
    *,
    exchange: str = "binance",
    native: str | None = None,
    seq: int = 0,
    state: StoredState = "live",
    update_id: int = 100,
    exchange_us: int | None = 1_700_000_000_000_000,
    received_us: int = 1_700_000_000_010_000,
    published_us: int = 1_700_000_000_011_000,
    feeder: str = "A",
    depth: int = 20,
    bids: Levels = ((99.5, 1.0), (99.0, 2.0)),
    asks: Levels = ((100.5, 1.5), (101.0, 2.5)),
) -> OrderBookSnapshot:
    """A small valid book."""
    return OrderBookSnapshot(
        seq=seq,
        exchange=exchange,
        symbol=symbol,
        native=native or symbol.replace("-", ""),
        state=state,
        update_id=update_id,
        exchange_us=exchange_us,
        received_us=received_us,
        published_us=published_us,
        feeder=feeder,
        depth=depth,
        bids=bids,
        asks=asks,
    )
