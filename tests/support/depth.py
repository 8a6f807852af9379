"""Depth of market for tests: updates, snapshots, and the frames that carry them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bookbus.feeders.books.order_book import DepthChange

BIDS: Sequence[DepthChange] = ((99.0, 1.0), (98.0, 2.0))
ASKS: Sequence[DepthChange] = ((101.0, 1.0), (102.0, 2.0))


@dataclass(frozen=True, slots=True)
class Depth:
    """Changes of a book, or a whole one."""

    first_id: int
    last_id: int
    bids: Sequence[DepthChange]
    asks: Sequence[DepthChange]
    exchange_us: int | None = None
    is_whole: bool = False


def depth_update(
    first_id: int,
    last_id: int | None = None,
    bids: Sequence[DepthChange] = (),
    asks: Sequence[DepthChange] = (),
    exchange_us: int | None = None,
) -> Depth:
    """Changes with the ids first to last; one id if there is one."""
    return Depth(first_id, first_id if last_id is None else last_id, bids, asks, exchange_us)


def depth_snapshot(
    last_id: int, bids: Sequence[DepthChange] = BIDS, asks: Sequence[DepthChange] = ASKS, exchange_us: int | None = None
) -> Depth:
    """A whole book at one id."""
    return Depth(last_id, last_id, bids, asks, exchange_us, is_whole=True)


def texts(levels: Sequence[DepthChange]) -> list[list[str]]:
    """Levels as Binance writes them."""
    return [[f"{price:.8f}", f"{quantity:.8f}"] for price, quantity in levels]


def combined_frame(stream: str, data: Any) -> bytes:
    """A frame of Binance's combined stream."""
    return msgspec.json.encode({"stream": stream, "data": data})


def diff_frame(
    first_id: int,
    last_id: int | None = None,
    bids: Sequence[DepthChange] = (),
    asks: Sequence[DepthChange] = (),
    native: str = "BTCUSDT",
    event_time_ms: int = 1_700_000_000_000,
) -> bytes:
    """Binance's diff depth frame."""
    data = {
        "e": "depthUpdate",
        "E": event_time_ms,
        "s": native,
        "U": first_id,
        "u": first_id if last_id is None else last_id,
        "b": texts(bids),
        "a": texts(asks),
    }
    return combined_frame(f"{native.lower()}@depth@100ms", data)


def depth_answer(last_id: int, bids: Sequence[DepthChange] = BIDS, asks: Sequence[DepthChange] = ASKS) -> bytes:
    """Binance's answer to a depth request."""
    return msgspec.json.encode({"lastUpdateId": last_id, "bids": texts(bids), "asks": texts(asks)})


def partial_frame(
    last_id: int,
    bids: Sequence[DepthChange] = BIDS,
    asks: Sequence[DepthChange] = ASKS,
    native: str = "BTCUSDT",
    levels: int = 20,
) -> bytes:
    """Binance's partial depth frame."""
    return combined_frame(f"{native.lower()}@depth{levels}@100ms", msgspec.Raw(depth_answer(last_id, bids, asks)))
