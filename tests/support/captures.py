"""Recorded exchange traffic, and the books that an independent program computed from it, if available."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

_REPOSITORY = Path(__file__).parents[2]


NOT_AT_HAND = "no captures"
"""What the reason of a skip begins with where no machine could install what is missing."""


def capture_directory() -> Path:
    """The directory of `BOOKBUS_CAPTURES`, else `shared/captures` beside the repository. Skips the test if absent."""
    if named := os.environ.get("BOOKBUS_CAPTURES"):
        return Path(named)
    directory = _REPOSITORY.parent / "shared" / "captures"
    if not directory.is_dir():
        pytest.skip(f"{NOT_AT_HAND} in {directory}; BOOKBUS_CAPTURES names another directory")
    return directory


def capture_path(name: str) -> Path:
    """The recording with this name."""
    return capture_directory() / f"{name}.jsonl.gz"


Levels = tuple[tuple[float, float], ...]


class Checkpoint(msgspec.Struct):
    """The best five levels after line number `line` of the recording, counted from 0."""

    line: int
    last_update_id: int
    bids: Levels
    asks: Levels


class GoldenBook(msgspec.Struct):
    """One symbol's expected book after the last line and at checkpoints."""

    symbol: str
    last_update_id: int
    bids: Levels
    asks: Levels
    checkpoints: list[Checkpoint]


def golden_books(name: str) -> dict[str, GoldenBook]:
    """The expected books of a recording, by native symbol."""
    data: dict[str, Any] = msgspec.json.decode((capture_directory() / "golden" / f"{name}.json").read_bytes())
    return {book.symbol: book for book in msgspec.convert(data["books"], list[GoldenBook], strict=False)}
