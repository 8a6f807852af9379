"""binance-sdk-spot, the official package: partial depth, diff depth with a REST snapshot, other market data."""

import asyncio
from typing import Any

from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_sdk_spot.rest_api.models import ExchangeInfoSymbolStatusEnum, KlinesIntervalEnum
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_streams.models import DiffBookDepthUpdateSpeedEnum, KlineIntervalEnum
from local_book import LocalBook
from report import Report


async def follow(report: Report, spot: Any, streams: Any, symbol: str) -> None:
    book = LocalBook()

    def receive(update: Any) -> None:
        if book.update(update.U, update.u, update.b, update.a):
            report.book(symbol, book.update_id, book.bids, book.asks)

    # Its request ids are UUIDs.
    stream = await streams.diff_book_depth(
        symbol.lower(), update_speed=DiffBookDepthUpdateSpeedEnum["UPDATE_SPEED_100ms"].value
    )
    stream.on("message", receive)
    snapshot = (await asyncio.to_thread(spot.rest_api.depth, symbol, limit=1000)).data()
    book.load(snapshot.last_update_id, snapshot.bids, snapshot.asks)
    async with asyncio.timeout(20):
        while not report.has_enough(symbol):
            await asyncio.sleep(0.05)


def check_requests(report: Report, rest: Any) -> None:
    symbol, other = report.symbols[:2]
    with report.check("time"):
        assert rest.time().data().server_time > 0
    with report.check("exchange_info(symbol_status=)"):
        gone = rest.exchange_info(symbol_status=ExchangeInfoSymbolStatusEnum["BREAK"].value).data()
        assert {each.status for each in gone.symbols} == {"BREAK"}, gone
    with report.check("ticker24hr without a type"):
        assert rest.ticker24hr(symbol).data().actual_instance.symbol == symbol
    with report.check("ticker_book_ticker(symbols=)"):
        found = rest.ticker_book_ticker(symbols=[other]).data().actual_instance
        assert [each.symbol for each in getattr(found, "root", found)] == [other], found
    with report.check("get_trades"):
        assert len(rest.get_trades(symbol, limit=5).data()) == 5
    with report.check("klines"):
        assert len(rest.klines(symbol, KlinesIntervalEnum["INTERVAL_1m"].value, limit=3).data()) == 3


async def check_streams(report: Report, streams: Any) -> None:
    symbol = report.symbols[0].lower()
    for name, subscribing in {
        "trade": streams.trade(symbol),
        "agg_trade": streams.agg_trade(symbol),
        "kline": streams.kline(symbol, KlineIntervalEnum["INTERVAL_1m"].value),
        "mini_ticker": streams.mini_ticker(symbol),
        "all_mini_ticker": streams.all_mini_ticker(),
        "ticker": streams.ticker(symbol),
        "book_ticker": streams.book_ticker(symbol),
    }.items():
        with report.check(name):
            messages: asyncio.Queue[Any] = asyncio.Queue()
            stream = await subscribing
            stream.on("message", messages.put_nowait)
            message = await asyncio.wait_for(messages.get(), 5)
            assert message, name


async def main(report: Report) -> None:
    spot = Spot(
        config_rest_api=ConfigurationRestAPI(base_path=report.rest_url),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"{report.ws_url}/stream"),
    )
    streams = await spot.websocket_streams.create_connection()
    await asyncio.gather(*(follow(report, spot, streams, symbol) for symbol in report.symbols))
    await asyncio.to_thread(check_requests, report, spot.rest_api)
    await check_streams(report, streams)
    await streams.close_connection(close_session=True)


asyncio.run(main(Report("binance-sdk-spot")))
