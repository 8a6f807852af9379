"""Every kind of provider, with a way to deliver books to it, for the contract tests."""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import redis

from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider, UpbitL2WebSocketProvider
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.multi_provider import MultiExchangeProvider, assemble
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from tests.support.builders import book
from tests.support.fake_adapters import FakeBinanceWebSocketAdapter, FakeUpbitWebSocketAdapter, no_callback
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter


class ProviderSource(ABC):
    """Creates providers of BTC and ETH, and delivers books of BTC to them. ETH never has a book."""

    names = ("BTC-USDT", "BTCUSDT", "BTC")
    """Standard, native and alias."""
    absent = "ETH"
    pushes = True
    """Whether its providers notify of changes."""

    @abstractmethod
    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        """A new provider, not started."""

    @abstractmethod
    def bring(self, update_id: int) -> None:
        """Deliver a newer book of BTC. Ids rise from one call to the next."""

    def close(self) -> None:  # noqa: B027
        """Release resources at the end of the test."""


class RedisSource(ProviderSource):
    """Books on a real server, written by the publish script."""

    mode: Mode = "push"

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = redis.Redis.from_url(url)
        self._writer = BusWriter(self._client)
        self._ending = ExitStack()
        self._ending.enter_context(self._client)
        self._ending.enter_context(self._writer.confirming())

    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        return RedisMarketDataProvider(self.url, "binance", ["BTC", "ETH"], self.mode, max_age=max_age)

    def bring(self, update_id: int) -> None:
        assert self._writer.update("BTC-USDT", update_id) == 1

    def close(self) -> None:
        self._ending.close()


class PulledRedisSource(RedisSource):
    """The same in pull mode."""

    mode = "pull"
    pushes = False


class MultiSource(RedisSource):
    """The books of two exchanges and the exchange rate on a real server, consolidated."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._providers: list[MultiExchangeProvider] = []

    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        def make(exchange: str, names: list[str]) -> MarketDataProvider:
            return RedisMarketDataProvider(self.url, exchange, names, self.mode, max_age=max_age)

        made = assemble(make, ["binance", "upbit"], ["BTC", "ETH"], fx_max_age=60.0, max_age=max_age)
        self._providers.append(made)
        return made

    def bring(self, update_id: int) -> None:
        self._writer.update("USDT-KRW", update_id, exchange="upbit", bids=((1400.0, 1.0),), asks=((1400.0001, 1.0),))
        self._writer.update("BTC-KRW", update_id, exchange="upbit", bids=((139_000.0, 1.0),), asks=((141_000.0, 1.0),))
        super().bring(update_id)
        for provider in self._providers:
            if provider.get_connection_status().is_running:
                wait_for(partial(_has_taken, provider, update_id))


class PulledMultiSource(MultiSource):
    """The same in pull mode."""

    mode = "pull"
    pushes = False


class MockSource(ProviderSource):
    """Synthetic books, which change by themselves."""

    absent = "DOGE"

    def __init__(self, url: str) -> None:
        self._providers: list[MarketDataProvider] = []

    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        self._providers.append(MockMarketDataProvider(["BTC", "ETH"], max_age=max_age))
        return self._providers[-1]

    def bring(self, update_id: int) -> None:
        for provider in self._providers:
            if provider.get_connection_status().is_running:
                before = provider.status("BTC").update_id or 0
                wait_for(partial(_is_newer, provider, before))


class BinanceSource(ProviderSource):
    """Books of a fake connection to the exchange."""

    def __init__(self, url: str) -> None:
        self._adapters: list[FakeBinanceWebSocketAdapter] = []

    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        fake = FakeBinanceWebSocketAdapter(["BTCUSDT", "ETHUSDT"], no_callback)
        self._adapters.append(fake)
        return BinanceL2WebSocketProvider(["BTC", "ETH"], fake, max_age=max_age)

    def bring(self, update_id: int) -> None:
        for adapter in self._adapters:
            adapter.inject_snapshot(book("BTC-USDT", update_id=update_id, feeder=""))


class UpbitSource(ProviderSource):
    """The same for an exchange with quote-first symbols."""

    names = ("BTC-KRW", "KRW-BTC", "BTC")

    def __init__(self, url: str) -> None:
        self._adapters: list[FakeUpbitWebSocketAdapter] = []

    def provider(self, max_age: float = 5.0) -> MarketDataProvider:
        fake = FakeUpbitWebSocketAdapter(["KRW-BTC", "KRW-ETH"], no_callback)
        self._adapters.append(fake)
        return UpbitL2WebSocketProvider(["BTC", "ETH"], fake, max_age=max_age)

    def bring(self, update_id: int) -> None:
        for adapter in self._adapters:
            adapter.inject_snapshot(book("BTC-KRW", exchange="upbit", native="KRW-BTC", update_id=update_id, feeder=""))


def _is_newer(provider: MarketDataProvider, update_id: int) -> bool:
    return (provider.status("BTC").update_id or 0) > update_id


def _has_taken(provider: MultiExchangeProvider, update_id: int) -> bool:
    snapshots = [venue.snapshot for venue in provider.consolidated("BTC").venues]
    return all(snapshot is not None and snapshot.update_id == update_id for snapshot in snapshots)


SOURCES: dict[str, type[RedisSource] | type[MockSource] | type[BinanceSource] | type[UpbitSource]] = {
    "redis-push": RedisSource,
    "redis-pull": PulledRedisSource,
    "mock": MockSource,
    "binance": BinanceSource,
    "upbit": UpbitSource,
    "multi": MultiSource,
    "multi-pull": PulledMultiSource,
}


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that accepts connections and never replies: its URL, and an event set by the first connection."""
    connected = threading.Event()
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return
                connected.set()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.getsockname()[1]}/0", connected
        finally:
            # Closing the socket alone does not end accept().
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()
