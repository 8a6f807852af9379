"""ccxt: `watch_order_book` of its WebSocket half, and what its REST half asks for."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any

import ccxt.pro
from report import Report

WATCH_LIMITS = {"binance": None, "bybit": 50, "upbit": None}
REQUEST_LIMITS = {"binance": 1000, "bybit": 50, "upbit": None}


class Bybit(ccxt.pro.bybit):
    """Remembers the update id of each book, which the package's books of Bybit do not tell."""

    def handle_order_book(self, client: Any, message: Any) -> None:
        super().handle_order_book(client, message)
        symbol = self.safe_symbol(message["data"]["s"], None, None, "spot")
        self.orderbooks[symbol]["nonce"] = message["data"]["u"]


def create(report: Report) -> Any:
    """The exchange of ccxt, with the local addresses among its `urls`."""
    # An Upbit book has 15 levels unless more are asked for.
    options = {"fetchMarkets": {"types": ["spot"]}, "watchOrderBook": {"limit": 30}}
    exchange = (Bybit if report.exchange == "bybit" else getattr(ccxt.pro, report.exchange))({"options": options})
    urls = exchange.urls["api"]
    match report.exchange:
        case "binance":
            urls["public"] = f"{report.rest_url}/api/v3"
            urls["ws"]["spot"] = f"{report.ws_url}/ws"
        case "bybit":
            # Spot, linear and inverse are asked for, as by default; options for three coins would be three requests.
            exchange.options["fetchMarkets"] = {"types": ["spot", "linear", "inverse"]}
            urls["public"] = report.rest_url
            urls["ws"]["public"]["spot"] = f"{report.ws_url}/v5/public/spot"
        case "upbit":
            urls["public"] = report.rest_url
            urls["ws"] = f"{report.ws_url}/websocket/v1"
    return exchange


async def follow(exchange: Any, report: Report, symbol: str) -> None:
    native = exchange.market(symbol)["id"]
    while not report.has_enough(native):
        book = await exchange.watch_order_book(symbol, WATCH_LIMITS[report.exchange])
        report.book(native, book["nonce"] or book["timestamp"], book["bids"], book["asks"])


def soon(answer: Awaitable[Any]) -> Awaitable[Any]:
    return asyncio.wait_for(answer, 8)


async def check(exchange: Any, report: Report, symbol: str) -> None:
    """Requests and streams beside the books."""
    other = exchange.markets_by_id[report.symbols[1]][0]["symbol"]
    if exchange.has["fetchTime"] is True:
        with report.check("fetch_time"):
            assert abs(await soon(exchange.fetch_time()) - exchange.milliseconds()) < 2000
    with report.check("fetch_order_book"):
        book = await soon(exchange.fetch_order_book(symbol, REQUEST_LIMITS[report.exchange]))
        if report.exchange != "bybit":  # there it has no update id
            report.answer(report.symbols[0], book["nonce"] or book["timestamp"], book["bids"], book["asks"])
        middle = (book["bids"][0][0] + book["asks"][0][0]) / 2
    with report.check("fetch_ticker"):
        ticker = await soon(exchange.fetch_ticker(symbol))
        assert abs(ticker["last"] / middle - 1) < 0.05, ticker
        assert ticker["low"] <= ticker["last"] <= ticker["high"], ticker
    with report.check("fetch_tickers"):
        tickers = await soon(exchange.fetch_tickers([symbol, other]))
        assert set(tickers) == {symbol, other}, tickers
    with report.check("fetch_trades"):
        trades = await soon(exchange.fetch_trades(symbol, limit=20))
        assert len(trades) > 1
        assert all(abs(trade["price"] / middle - 1) < 0.05 for trade in trades), trades
        assert [trade["timestamp"] for trade in trades] == sorted(trade["timestamp"] for trade in trades)
    with report.check("fetch_ohlcv"):
        candles = await soon(exchange.fetch_ohlcv(symbol, "1m", limit=5))
        assert len(candles) == 5, candles
        assert all(low <= min(start, end) <= max(start, end) <= high for _, start, high, low, end, _ in candles)
        assert all(later[0] - earlier[0] == 60_000 for earlier, later in itertools.pairwise(candles))
    if report.exchange == "binance":
        with report.check("fetch_bids_asks"):
            quotes = await soon(exchange.fetch_bids_asks([symbol]))
            assert set(quotes) == {symbol}, quotes
        with report.check("fetch_last_prices"):
            assert (await soon(exchange.fetch_last_prices([symbol])))[symbol]["price"] > 0
    with report.check("watch_ticker"):
        ticker = await soon(exchange.watch_ticker(symbol))
        assert abs(ticker["last"] / middle - 1) < 0.05, ticker
    with report.check("watch_tickers"):
        assert await soon(exchange.watch_tickers([symbol, other]))
    with report.check("watch_trades"):
        trades = await soon(exchange.watch_trades(symbol))
        assert all(abs(trade["price"] / middle - 1) < 0.05 for trade in trades), trades
    if report.exchange != "upbit":
        with report.check("watch_ohlcv"):
            candles = await soon(exchange.watch_ohlcv(symbol, "1m"))
            _, start, high, low, end, _ = candles[-1]
            assert low <= min(start, end) <= max(start, end) <= high, candles


async def run(report: Report) -> None:
    exchange = create(report)
    try:
        await exchange.load_markets()
        symbols = [exchange.markets_by_id[native][0]["symbol"] for native in report.symbols]
        await asyncio.gather(*(follow(exchange, report, symbol) for symbol in symbols))
        await check(exchange, report, symbols[0])
    finally:
        await exchange.close()


asyncio.run(run(Report("ccxt")))
