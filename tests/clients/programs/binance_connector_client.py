"""binance-connector: partial depth, diff depth with a REST snapshot, and the rest of its market data."""

import json
import threading
import time
from collections import defaultdict
from typing import Any

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient
from local_book import LocalBook
from report import Report

REQUEST_INTERVAL = 0.3
"""Seconds between requests: Binance ends a connection that sends more than five messages a second."""


class Follower:
    """Local books of all symbols, fed by the package's thread."""

    def __init__(self, report: Report, rest: Any) -> None:
        self._report = report
        self._rest = rest
        self._lock = threading.Lock()
        self._books = {symbol: LocalBook() for symbol in report.symbols}
        self.messages: dict[str, list[Any]] = defaultdict(list)
        """Answers and payloads, by event type; answers to requests under `result`."""
        self.errors: list[str] = []

    def receive(self, _: Any, text: str) -> None:
        message = json.loads(text)
        first = message[0] if isinstance(message, list) else message
        if first.get("e") != "depthUpdate":
            self.messages[first.get("e", "result")].append(message)
            return
        with self._lock:
            book = self._books[message["s"]]
            if book.update(message["U"], message["u"], message["b"], message["a"]):
                self._report.book(message["s"], book.update_id, book.bids, book.asks)

    def fail(self, _: Any, error: Exception) -> None:
        self.errors.append(repr(error))

    def load(self, symbol: str) -> None:
        snapshot = self._rest.depth(symbol, limit=1000)
        with self._lock:
            self._books[symbol].load(snapshot["lastUpdateId"], snapshot["bids"], snapshot["asks"])


def check(report: Report, rest: Any) -> None:
    symbol, other = report.symbols[:2]
    with report.check("time"):
        assert rest.time()["serverTime"] > 0
    with report.check("depth"):
        book = rest.depth(symbol, limit=1000)
        report.answer(symbol, book["lastUpdateId"], book["bids"], book["asks"])
    with report.check("exchange_info by symbols and by status"):
        assert [each["symbol"] for each in rest.exchange_info(symbols=[symbol, other])["symbols"]] == [symbol, other]
        broken = rest.query("/api/v3/exchangeInfo", {"symbolStatus": "BREAK"})["symbols"]
        assert {each["status"] for each in broken} == {"BREAK"}, broken
        assert {each["status"] for each in rest.exchange_info()["symbols"]} > {"TRADING"}
    with report.check("ticker_24hr without a type"):
        assert rest.ticker_24hr(symbol)["symbol"] == symbol
        assert [each["symbol"] for each in rest.ticker_24hr(symbols=[symbol, other])] == [symbol, other]
    with report.check("book_ticker(symbols=)"):
        assert [each["symbol"] for each in rest.book_ticker(symbols=[other])] == [other]
    with report.check("ticker_price"):
        assert [each["symbol"] for each in rest.ticker_price(symbols=[symbol, other])] == [symbol, other]
        assert float(rest.ticker_price(symbol)["price"]) > 0
    with report.check("trades"):
        assert len(rest.trades(symbol, limit=10)) == 10
    with report.check("agg_trades"):
        assert len(rest.agg_trades(symbol, limit=10)) == 10
    with report.check("klines and ui_klines"):
        assert len(rest.klines(symbol, "1m", limit=4)) == len(rest.ui_klines(symbol, "1m", limit=4)) == 4
    with report.check("avg_price"):
        assert float(rest.avg_price(symbol)["price"]) > 0
    with report.check("Date header"):
        header = Spot(base_url=report.rest_url, show_header=True).time()["header"]
        assert header["Date"].endswith("GMT"), header


def main(report: Report) -> None:
    rest = Spot(base_url=report.rest_url)
    follower = Follower(report, rest)
    client = SpotWebsocketStreamClient(report.ws_url, on_message=follower.receive, on_error=follower.fail)
    for symbol in report.symbols:
        client.diff_book_depth(symbol, speed=100)
        time.sleep(REQUEST_INTERVAL)
    for symbol in report.symbols:
        follower.load(symbol)
    deadline = time.monotonic() + 20
    while not report.complete and not follower.errors and time.monotonic() < deadline:
        time.sleep(0.05)
    check(report, rest)
    symbol = report.symbols[0]
    for subscribe in (
        lambda: client.trade(symbol),
        lambda: client.agg_trade(symbol),
        lambda: client.kline(symbol, "1m"),
        lambda: client.mini_ticker(symbol),
        lambda: client.ticker(symbol),
        lambda: client.mini_ticker(),
        lambda: client.rolling_window_ticker(symbol, "1h"),
    ):
        subscribe()
        time.sleep(REQUEST_INTERVAL)
    expected = {"trade", "aggTrade", "kline", "24hrMiniTicker", "24hrTicker", "1hTicker"}
    with report.check(f"streams: {', '.join(sorted(expected))}"):
        deadline = time.monotonic() + 5
        while not expected <= follower.messages.keys() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert expected <= follower.messages.keys(), expected - follower.messages.keys()
        assert any(isinstance(message, list) for message in follower.messages["24hrMiniTicker"])
        assert not [reply for reply in follower.messages["result"] if reply.get("result", 0) is not None]
    with report.check("no error"):
        assert not follower.errors, follower.errors
    client.stop()


main(Report("binance-connector"))
