"""cryptofeed: the books and trades of its feeds."""

import asyncio
from collections import Counter
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import EXCHANGE_MAP
from report import Report

ADDRESSES = {
    "binance": ("stream.binance.com:9443", "https://api.binance.com"),
    "bybit": ("stream.bybit.com", "https://api.bybit.com"),
    "upbit": ("api.upbit.com", "https://api.upbit.com"),
}


def update_id(book: Any) -> int:
    """As the exchange sent it."""
    raw = book.raw
    if "data" in raw:
        raw = raw["data"]
    return int(raw.get("u") or raw.get("tms") or raw["lastUpdateId"])


def local_feed(report: Report) -> Any:
    """The feed's class with the local addresses in its endpoints, and without TLS, which its connections insist on."""
    feed_class = EXCHANGE_MAP[report.exchange.upper()]
    ws, rest = ADDRESSES[report.exchange]
    for endpoint in feed_class.websocket_endpoints:
        endpoint.address = endpoint.address.replace(ws, report.ws_url.removeprefix("ws://"))
    for endpoint in feed_class.rest_endpoints:
        endpoint.address = endpoint.address.replace(rest, report.rest_url)

    class LocalFeed(feed_class):
        def connect(self) -> Any:
            connections = super().connect()
            for connection, *_ in connections:
                connection.address = connection.address.replace("wss://", "ws://")
            return connections

    return LocalFeed


async def main(report: Report) -> None:
    feed_class = local_feed(report)
    names = {native.replace("/", ""): name for name, native in (await feed_class.load_symbols()).items()}
    natives = {names[native]: native for native in report.symbols}
    trades: Counter[str] = Counter()

    async def on_book(book: Any, _: float) -> None:
        sides = book.book.bids.to_list(), book.book.asks.to_list()
        report.book(natives[book.symbol], update_id(book), *sides)

    async def on_trade(trade: Any, _: float) -> None:
        trades[natives[trade.symbol]] += 1

    handler = FeedHandler()
    handler.add_feed(
        feed_class(symbols=list(natives), channels=[L2_BOOK, TRADES], callbacks={L2_BOOK: on_book, TRADES: on_trade})
    )
    running = asyncio.create_task(handler.run_async(install_signal_handlers=False))
    for _ in range(400):
        if report.complete and len(trades) == len(natives):
            break
        await asyncio.sleep(0.05)
    with report.check("trades"):
        assert set(trades) == set(report.symbols), trades
    handler.request_stop()
    await asyncio.wait_for(running, 10)


asyncio.run(main(Report("cryptofeed")))
