"""Recordings as a source of frames for readers."""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import coroutine
from typing import NamedTuple

from bookbus.feeders.replay import ReplayError, replay
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.capture import CaptureError, CaptureFrame
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade


class TapeFrame(NamedTuple):
    """One recorded frame: when it was received (seconds since 1970), and the books and trades it brought."""

    time: float
    events: tuple[OrderBookSnapshot | Trade, ...]
    exchange: str


def read_capture(path: Path, symbols: Iterable[str] = (), depth: int = 20) -> Iterator[TapeFrame]:
    """Every frame of a recording in the order received; of all symbols unless some are named.

    Raises OSError if it cannot be read, CaptureError if it is no recording, SymbolError for a name.
    """
    events: list[OrderBookSnapshot | Trade] = []
    options = FeedOptions("diff", depth, frozenset({"book", "trades"}))
    playing = replay(path, lambda book, _: events.append(book), events.append, _hand_over, options, tuple(symbols))
    before: CaptureFrame | None = None
    while True:
        try:
            frame = playing.send(None)
        except StopIteration:
            frame = None
        except ReplayError as error:
            raise CaptureError(str(error)) from error
        if before is not None:
            yield TapeFrame(before.t, tuple(events), before.venue)
            events.clear()
        if frame is None:
            return
        before = frame


@coroutine
def _hand_over(frame: CaptureFrame) -> Generator[CaptureFrame, None, None]:
    """Stop the replay before each frame, until it is asked to go on."""
    yield frame
