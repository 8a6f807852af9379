"""A process that reads books in a signal handler, in threads and in its main thread at once, or after a fork."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from bookbus.consumers.change_feed import OnSnapshot
from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from tests.support.builders import book

INTERVAL = 0.0003
SECONDS = 3.0


class Adapter:
    """Delivers a new book a thousand times a second."""

    callback: OnSnapshot

    async def connect(self) -> None:
        pass

    async def subscribe(self, channels: object) -> None:
        self.seq = 0

    async def receive_loop(self) -> None:
        while True:
            self.seq += 1
            self.callback(book("BTC-USDT", seq=self.seq, update_id=self.seq))
            await asyncio.sleep(0.001)


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def make(kind: str, url: str) -> MarketDataProvider:
    if kind in ("push", "pull"):
        return RedisMarketDataProvider(url, symbols=["BTC-USDT"], mode=kind)  # type: ignore[arg-type]
    if kind == "direct":
        return BinanceL2WebSocketProvider(["BTC"], ws_adapter=Adapter())
    mock = MockMarketDataProvider(["BTC"])
    if kind == "mock":
        return mock
    return MultiExchangeProvider({"binance": MockMarketDataProvider(["BTC"])}, ["BTC"])


def read_all(provider: MarketDataProvider) -> None:
    """Every public read."""
    provider.read("BTC")
    provider.status("BTC")
    provider.get_latest_snapshot("BTC")
    provider.get_many(["BTC"])
    provider.get_connection_status()
    if isinstance(provider, MultiExchangeProvider):
        provider.consolidated("BTC")
        provider.opportunities("BTC")


def read_in_signals(provider: MarketDataProvider) -> None:
    """Print how many reads of the handler interrupted the main thread's; ids of one thread never fall."""
    handled, newest, registered, ended = 0, 0, 0, False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal handled, registered
        read_all(provider)
        handled += 1
        if kind != "pull" and registered < 20:
            provider.on_snapshot(lambda _: None)
            provider.on_status(lambda _: None)
            registered += 1
        # Armed again here, as each handler may be slower than the interval.
        signal.setitimer(signal.ITIMER_REAL, 0 if ended else INTERVAL)

    with provider:
        provider.wait_until_live(timeout=20)
        stopping = threading.Event()
        readers = [threading.Thread(target=_repeat, args=(lambda: read_all(provider), stopping)) for _ in range(2)]
        for reader in readers:
            reader.start()
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or handled < 20:
            read_all(provider)
            snapshot = provider.get_latest_snapshot("BTC")
            assert snapshot is not None
            assert snapshot.update_id >= newest, "an older book after a newer one"
            newest = snapshot.update_id
        ended = True
        stopping.set()
        for reader in readers:
            reader.join()
    say(handled)


def _repeat(read: Callable[[], None], stopping: threading.Event) -> None:
    while not stopping.wait(0.001):
        read()


def read_after_fork(provider: MarketDataProvider) -> None:
    """Print what the child sees: the status before and after it starts the provider, then what the parent sees."""
    with provider:
        provider.wait_until_live(timeout=20)
        provider.read("BTC").require_live()
        child = os.fork()
        if child == 0:
            reading, status = provider.read("BTC"), provider.get_connection_status()
            say(f"{reading.status}|{status.is_running}|{status.thread_alive}|{reading.reason}")
            provider.stop()
            provider.start()
            provider.wait_until_live(timeout=20)
            say(provider.read("BTC").status)
            provider.stop()
            os._exit(0)
        os.waitpid(child, 0)
        provider.wait_until_live(timeout=20)
        say(provider.read("BTC").status)


def stop_in_signals(kind: str, url: str) -> None:
    """Stop providers in a signal handler while they start; print how many were."""
    for number in range(20):
        provider = make(kind, url)
        signal.signal(signal.SIGALRM, lambda *_, provider=provider: provider.stop())
        signal.setitimer(signal.ITIMER_REAL, 0.0001 * (number + 1))
        with suppress(ConnectionError):
            provider.start()
        signal.setitimer(signal.ITIMER_REAL, 0)
        provider.stop()
        assert not provider.get_connection_status().thread_alive
    say(20)


if __name__ == "__main__":
    what, kind, url = sys.argv[1:]
    if what == "signals":
        read_in_signals(make(kind, url))
    elif what == "fork":
        read_after_fork(make(kind, url))
    else:
        stop_in_signals(kind, url)
