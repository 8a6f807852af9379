"""Recordings as a source of frames for readers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bookbus._extras import advice
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade


class TapeFrame(NamedTuple):
    """One recorded frame: when it was received (seconds since 1970), and the books and trades it delivered."""

    time: float
    events: tuple[OrderBookSnapshot | Trade, ...]
    exchange: str


def read_capture(path: Path, symbols: Iterable[str] = (), depth: int = 20) -> Iterator[TapeFrame]:
    """Every frame of a recording in the order received; of all symbols unless some are named.

    Raises OSError if it cannot be read, CaptureError if it is no recording or a package is missing, SymbolError for a
    name.
    """
    try:
        # Replays need the extra `feeder`, which a reader of the bus may not have installed.
        from bookbus.feeders.errors import ReplayError
        from bookbus.feeders.replay import Replay
        from bookbus.feeders.venue import FeedOptions
    except ImportError as error:
        raise CaptureError(advice("reading a recording", error)) from error
    replay = Replay(path, FeedOptions("diff", depth, frozenset({"book", "trades"})), tuple(symbols))
    try:
        for frame in replay:
            yield TapeFrame(frame.time, tuple(event for _, event in frame.events), replay.exchange)
    except ReplayError as error:
        raise CaptureError(str(error)) from error
