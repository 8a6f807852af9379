"""Writes a synthetic tape as a recording of Binance frames."""

import gzip
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.schemas.capture import CaptureFrame, encode_frame
from bookbus.schemas.snapshot import Level, OrderBookSnapshot

_WS_URL = "wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms/btcusdt@trade"
_REST_URL = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"


def write_capture(path: Path, events: Iterable[TapeEvent]) -> None:
    """Each book as an update of all its levels, the first one also as a REST snapshot.

    A level with the quantity 0 removes its price.
    """
    with gzip.open(path, "wb") as lines:
        update_id = 0
        for event in events:
            at = event.received_us / 1e6
            if not isinstance(event, OrderBookSnapshot):
                data = {
                    "e": "trade",
                    "E": event.received_us // 1000,
                    "s": "BTCUSDT",
                    "t": event.trade_id,
                    "p": str(event.price),
                    "q": str(event.quantity),
                    "T": event.exchange_us // 1000,
                    "m": event.aggressor == "sell",
                    "M": True,
                }
                lines.write(_ws_frame(at, "btcusdt@trade", data))
                continue
            update_id += 1
            data = {
                "e": "depthUpdate",
                "E": event.received_us // 1000,
                "s": "BTCUSDT",
                "U": update_id,
                "u": update_id,
                "b": _pairs(event.bids),
                "a": _pairs(event.asks),
            }
            lines.write(_ws_frame(at, "btcusdt@depth@100ms", data))
            if update_id == 1:
                bids, asks = (_pairs([one for one in side if one[1]]) for side in (event.bids, event.asks))
                answer = {"lastUpdateId": update_id, "bids": bids, "asks": asks}
                lines.write(encode_frame(CaptureFrame(at, "binance", "http", _REST_URL, _text(answer))))


def _ws_frame(at: float, stream: str, data: object) -> bytes:
    return encode_frame(CaptureFrame(at, "binance", "ws", _WS_URL, _text({"stream": stream, "data": data})))


def _pairs(levels: Iterable[Level]) -> list[list[str]]:
    return [[str(price), str(quantity)] for price, quantity in levels]


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
