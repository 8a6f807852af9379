"""pyupbit: its WebSocket process, and what its quotation functions ask for."""

import queue
import time
from typing import Any

import pyupbit
import websockets
from pyupbit import quotation_api, websocket_api
from report import Report

REST = "https://api.upbit.com"
WS = "wss://api.upbit.com"


class Redirect:
    """`websockets` as the package sees it: with the local address instead of the one in its code."""

    ConnectionClosed = websockets.ConnectionClosed

    def __init__(self, ws_url: str) -> None:
        self._ws_url = ws_url

    def connect(self, url: str, **options: Any) -> Any:
        return websockets.connect(url.replace(WS, self._ws_url), **options)


def redirect(report: Report) -> None:
    """The package has its addresses in its functions: replace them where they leave it."""
    call = quotation_api._call_public_api
    quotation_api._call_public_api = lambda url, **query: call(url.replace(REST, report.rest_url), **query)
    websocket_api.websockets = Redirect(report.ws_url)


def levels(book: dict[str, Any], side: str) -> list[tuple[float, float]]:
    """A side without the zeros that fill up a thin one."""
    units = ((unit[f"{side}_price"], unit[f"{side}_size"]) for unit in book["orderbook_units"])
    return [level for level in units if level[0]]


def main(report: Report) -> None:
    manager = pyupbit.WebSocketManager("orderbook", report.symbols)
    deadline = time.monotonic() + 20
    kinds = set()
    while not report.complete and time.monotonic() < deadline:
        message = manager.get()
        kinds.add(message["stream_type"])
        report.book(message["code"], message["timestamp"], levels(message, "bid"), levels(message, "ask"))
    manager.terminate()
    with report.check("isOnlyRealtime"):
        assert kinds == {"REALTIME"}, kinds
    symbol = report.symbols[0]
    with report.check("get_tickers"):
        assert set(pyupbit.get_tickers()) == set(report.symbols)
    with report.check("get_orderbook"):
        for book in pyupbit.get_orderbook(report.symbols):
            report.answer(book["market"], book["timestamp"], levels(book, "bid"), levels(book, "ask"))
        best = pyupbit.get_orderbook(symbol)["orderbook_units"][0]
    with report.check("1,000-won grid"):
        book = pyupbit.get_orderbook("KRW-BTC")
        assert all(price % 1000 == 0 for side in ("bid", "ask") for price, _ in levels(book, side)), book
    with report.check("get_current_price"):
        assert abs(pyupbit.get_current_price(symbol) / best["bid_price"] - 1) < 0.05
    with report.check("get_ohlcv"):
        for interval in ("minute1", "day"):
            candles = pyupbit.get_ohlcv(symbol, interval=interval, count=3)
            assert len(candles) == 3, candles
            assert (candles["low"] <= candles["close"]).all() and (candles["close"] <= candles["high"]).all()
    for kind, field in (("ticker", "trade_price"), ("trade", "trade_price")):
        with report.check(f"{kind} stream"):
            manager = pyupbit.WebSocketManager(kind, [symbol])
            manager.alive = True
            manager.start()
            try:
                message = manager._WebSocketManager__q.get(timeout=8)
            except queue.Empty:
                raise AssertionError("nothing came") from None
            finally:
                manager.terminate()
            assert message["type"] == kind and abs(message[field] / best["bid_price"] - 1) < 0.05, message


if __name__ in ("__main__", "__mp_main__"):  # also in the processes that the package starts
    _report = Report("pyupbit")
    redirect(_report)
    if __name__ == "__main__":
        main(_report)
