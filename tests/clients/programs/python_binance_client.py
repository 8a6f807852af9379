"""python-binance: its depth cache, and what its client and socket manager ask for."""

import asyncio
from typing import Any

from binance import AsyncClient, BinanceSocketManager, DepthCacheManager
from report import Report


async def follow(client: Any, sockets: Any, report: Report, symbol: str) -> None:
    async with DepthCacheManager(client, symbol, bm=sockets, limit=1000, ws_interval=100) as manager:
        while not report.has_enough(symbol):
            cache = await manager.recv()
            # The id of the cache has no public name.
            report.book(symbol, manager._last_update_id, cache.get_bids(), cache.get_asks())


async def check(client: Any, sockets: Any, report: Report, symbol: str) -> None:
    with report.check("get_server_time"):
        assert (await client.get_server_time())["serverTime"] > 0
    with report.check("get_symbol_info"):
        assert (await client.get_symbol_info(symbol))["symbol"] == symbol
    with report.check("get_order_book"):
        book = await client.get_order_book(symbol=symbol, limit=1000)
        report.answer(symbol, book["lastUpdateId"], book["bids"], book["asks"])
    with report.check("get_ticker without a type"):
        assert (await client.get_ticker(symbol=symbol))["priceChangePercent"]
        assert {each["symbol"] for each in await client.get_ticker()} >= set(report.symbols)
    with report.check("get_all_tickers"):
        assert {each["symbol"] for each in await client.get_all_tickers()} >= set(report.symbols)
    with report.check("get_orderbook_ticker"):
        assert (await client.get_orderbook_ticker(symbol=symbol))["symbol"] == symbol
    with report.check("get_recent_trades"):
        trades = await client.get_recent_trades(symbol=symbol, limit=10)
        ids = [trade["id"] for trade in trades]
        assert ids == list(range(ids[0], ids[0] + 10)), ids
    with report.check("get_aggregate_trades"):
        assert len(await client.get_aggregate_trades(symbol=symbol, limit=5)) == 5
    with report.check("get_klines"):
        assert len(await client.get_klines(symbol=symbol, interval="1m", limit=3)) == 3
    with report.check("get_avg_price"):
        assert float((await client.get_avg_price(symbol=symbol))["price"]) > 0
    streams = {
        "trade_socket": (sockets.trade_socket(symbol), "trade"),
        "aggtrade_socket": (sockets.aggtrade_socket(symbol), "aggTrade"),
        "kline_socket": (sockets.kline_socket(symbol, "1m"), "kline"),
        "symbol_ticker_socket": (sockets.symbol_ticker_socket(symbol), "24hrTicker"),
        "symbol_miniticker_socket": (sockets.symbol_miniticker_socket(symbol), "24hrMiniTicker"),
        # It asks for `!miniTicker@arr@1000ms`.
        "miniticker_socket": (sockets.miniticker_socket(1000), "24hrMiniTicker"),
        "symbol_book_ticker_socket": (sockets.symbol_book_ticker_socket(symbol), None),
    }
    for name, (socket, event) in streams.items():
        with report.check(name):
            async with socket as stream:
                message = await asyncio.wait_for(stream.recv(), 5)
                first = message[0] if isinstance(message, list) else message
                assert first["s"] in report.symbols and first.get("e") == event, message


async def main(report: Report) -> None:
    # The addresses are class attributes; `create` already asks with them.
    AsyncClient.API_URL = f"{report.rest_url}/api"
    BinanceSocketManager.STREAM_URL = f"{report.ws_url}/"
    client = await AsyncClient.create()
    sockets = BinanceSocketManager(client)
    try:
        await asyncio.gather(*(follow(client, sockets, report, symbol) for symbol in report.symbols))
        await check(client, sockets, report, report.symbols[0])
    finally:
        await client.close_connection()


asyncio.run(main(Report("python-binance")))
