"""From Redis to the strategy. Public names are imported on first use, so that a reader loads only what it uses."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bookbus._extras import advice

if __name__ == "consumers":  # imported as a top-level folder of a checkout
    from bookbus._checkout import alias

    alias(__name__)

if TYPE_CHECKING:
    from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider as BinanceL2WebSocketProvider
    from bookbus.consumers.direct_provider import UpbitL2WebSocketProvider as UpbitL2WebSocketProvider
    from bookbus.consumers.market_data_provider import MarketDataProvider as MarketDataProvider
    from bookbus.consumers.mock_provider import MockMarketDataProvider as MockMarketDataProvider
    from bookbus.consumers.multi_provider import MultiExchangeProvider as MultiExchangeProvider
    from bookbus.consumers.reading import BookNotLiveError as BookNotLiveError
    from bookbus.consumers.reading import Reading as Reading
    from bookbus.consumers.recording import Recording as Recording
    from bookbus.consumers.redis_provider import RedisMarketDataProvider as RedisMarketDataProvider
    from bookbus.consumers.strategy import Context as Context
    from bookbus.consumers.strategy import Order as Order
    from bookbus.consumers.strategy import OrderUpdate as OrderUpdate
    from bookbus.consumers.strategy import Strategy as Strategy
    from bookbus.schemas.instruments import SymbolError as SymbolError
    from bookbus.schemas.snapshot import BookStatus as BookStatus
    from bookbus.schemas.snapshot import OrderBookSnapshot as OrderBookSnapshot
    from bookbus.schemas.wire import WireError as WireError

PUBLIC_NAMES = {
    "BinanceL2WebSocketProvider": "bookbus.consumers.direct_provider",
    "BookNotLiveError": "bookbus.consumers.reading",
    "BookStatus": "bookbus.schemas.snapshot",
    "Context": "bookbus.consumers.strategy",
    "MarketDataProvider": "bookbus.consumers.market_data_provider",
    "MockMarketDataProvider": "bookbus.consumers.mock_provider",
    "MultiExchangeProvider": "bookbus.consumers.multi_provider",
    "Order": "bookbus.consumers.strategy",
    "OrderBookSnapshot": "bookbus.schemas.snapshot",
    "OrderUpdate": "bookbus.consumers.strategy",
    "Reading": "bookbus.consumers.reading",
    "Recording": "bookbus.consumers.recording",
    "RedisMarketDataProvider": "bookbus.consumers.redis_provider",
    "Strategy": "bookbus.consumers.strategy",
    "SymbolError": "bookbus.schemas.instruments",
    "UpbitL2WebSocketProvider": "bookbus.consumers.direct_provider",
    "WireError": "bookbus.schemas.wire",
}
"""Each public name and the module that defines it; `bookbus` offers the same names."""


def __getattr__(name: str) -> Any:
    if name in PUBLIC_NAMES:
        try:
            return getattr(import_module(PUBLIC_NAMES[name]), name)
        except ModuleNotFoundError as error:
            raise ImportError(advice(name, error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC_NAMES])
