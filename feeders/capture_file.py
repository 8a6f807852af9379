"""Reads a capture file, compressed or not, and says what was wrong with it."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from bookbus.schemas.capture import CaptureError, CaptureFrame, decode_frame


class CaptureFile:
    """Iterate once for the frames; `bad_lines` and `cut_off` are final after that."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be read."""
        self.path = path
        self.frames = 0
        self.bad_lines = 0
        self.first_bad = ""
        self.cut_off = False
        """Whether the file ends in the middle of a line or of its compression: the recorder was killed."""
        with path.open("rb") as raw:
            self._compressed = raw.read(2) == b"\x1f\x8b"

    def __iter__(self) -> Iterator[CaptureFrame]:
        with self._open() as lines:
            for number, line in enumerate(_until_damage(lines), 1):
                if not line.endswith(b"\n"):
                    self.cut_off = True
                    return
                try:
                    frame = decode_frame(line)
                except CaptureError as error:
                    self.bad_lines += 1
                    self.first_bad = self.first_bad or f"line {number}: {error}"
                    continue
                self.frames += 1
                yield frame

    def _open(self) -> IO[bytes]:
        if self._compressed:
            return cast(IO[bytes], gzip.GzipFile(self.path, "rb"))
        return self.path.open("rb")


def _until_damage(lines: IO[bytes]) -> Iterator[bytes]:
    """Every line; one without its newline last if the compression breaks off."""
    try:
        yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield b""
