"""pybit: its order book stream, and what its HTTP session asks for."""

import time
from collections.abc import Callable
from typing import Any

from pybit import unified_trading
from pybit.unified_trading import HTTP, WebSocket
from report import Report


def follow(subscribe: Callable[[Any], None], done: Callable[[], bool]) -> None:
    """Subscribe with a new socket and wait until `done`.

    The package notes a request after it sent it: an answer that comes at once ends its connection. Then try again.
    """
    deadline = time.monotonic() + 20
    while not done() and time.monotonic() < deadline:
        socket = WebSocket("spot", testnet=False, restart_on_error=False)
        subscribe(socket)
        while not done() and socket.is_connected() and time.monotonic() < deadline:
            time.sleep(0.05)
        socket.exit()


def main(report: Report) -> None:
    # The addresses are a constant of the module and an attribute of the session.
    unified_trading.PUBLIC_WSS = f"{report.ws_url}/v5/public/{{CHANNEL_TYPE}}"
    session = HTTP()
    session.endpoint = report.rest_url
    symbol = report.symbols[0]

    def receive(message: dict[str, Any]) -> None:
        book = message["data"]
        # The package keeps the sides sorted as they came: best first is up to its user.
        bids = sorted(book["b"], key=lambda level: -float(level[0]))
        asks = sorted(book["a"], key=lambda level: float(level[0]))
        report.book(book["s"], book["u"], bids, asks)

    # Its request ids are UUIDs.
    follow(lambda socket: socket.orderbook_stream(50, report.symbols, receive), lambda: report.complete)
    check(report, session, symbol)
    streams: dict[str, Callable[[Any, Any], None]] = {
        "trade_stream": lambda socket, receive: socket.trade_stream(symbol, receive),
        "ticker_stream": lambda socket, receive: socket.ticker_stream(symbol, receive),
        "kline_stream": lambda socket, receive: socket.kline_stream(1, symbol, receive),
    }
    for name, subscribe in streams.items():
        with report.check(name):
            messages: list[Any] = []
            follow(lambda socket: subscribe(socket, messages.append), lambda: bool(messages))  # noqa: B023
            assert messages[0]["data"], messages


def check(report: Report, session: Any, symbol: str) -> None:
    with report.check("get_server_time"):
        assert int(session.get_server_time()["result"]["timeSecond"]) > 0
    with report.check("get_instruments_info of spot, linear, inverse"):
        for category, expected in (("spot", set(report.symbols)), ("linear", set()), ("inverse", set())):
            found = session.get_instruments_info(category=category)["result"]["list"]
            assert {each["symbol"] for each in found} >= expected, found
    with report.check("get_orderbook"):
        book = session.get_orderbook(category="spot", symbol=symbol, limit=50)["result"]
        report.answer(symbol, book["u"], book["b"], book["a"])
        assert len(book["b"]) == len(book["a"]) == 50
    with report.check("get_tickers"):
        assert session.get_tickers(category="spot", symbol=symbol)["result"]["list"][0]["lastPrice"]
    with report.check("get_public_trade_history"):
        trades = session.get_public_trade_history(category="spot", symbol=symbol, limit=10)["result"]["list"]
        assert len(trades) == 10
    with report.check("get_kline"):
        assert len(session.get_kline(category="spot", symbol=symbol, interval=1, limit=3)["result"]["list"]) == 3


main(Report("pybit"))
