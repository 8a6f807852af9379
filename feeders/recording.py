"""Capture files: written by a recorder, read frame by frame."""

import asyncio
import errno
import gzip
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from bookbus.schemas.capture import CaptureError, CaptureFrame, FrameKind, decode_frame, encode_frame

logger = logging.getLogger(__name__)

_WRITE_INTERVAL = 0.5


class Recorder:
    """Writes frames in the order received; `.gz` in the name compresses. Frames that are no text are only counted."""

    def __init__(self, path: Path, exchange: str, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError if the file exists or cannot be made."""
        self.path = path
        self.frames = 0
        self.not_text = 0
        self._exchange = exchange
        self._clock = clock
        self._unwritten: list[bytes] = []
        raw = path.open("xb")
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="wb")) if path.suffix == ".gz" else raw
        self._raw = raw

    def on_frame(self, url: str, message: bytes) -> None:
        self._record("ws", url, message)

    def on_answer(self, url: str, body: bytes) -> None:
        self._record("http", url, body)

    async def run(self) -> None:
        """Write received frames twice a second, until cancelled; then the rest."""
        try:
            while True:
                await asyncio.sleep(_WRITE_INTERVAL)
                self._write()
        finally:
            self.close()

    def close(self) -> None:
        """Write the rest and end the file."""
        if not self._raw.closed:
            self._write()
            self._file.close()
            self._raw.close()

    def _record(self, kind: FrameKind, url: str, data: bytes) -> None:
        try:
            raw = data.decode()
        except UnicodeDecodeError:
            self.not_text += 1
            return
        self.frames += 1
        self._unwritten.append(encode_frame(CaptureFrame(self._clock(), self._exchange, kind, url, raw)))

    def _write(self) -> None:
        lines, self._unwritten = self._unwritten, []
        self._file.writelines(lines)
        self._file.flush()


class CaptureFile:
    """Reads frames. Iterate once; `bad_lines` and `cut_off` are final after that."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be read."""
        self.path = path
        self.frames = 0
        self.bad_lines = 0
        self.first_bad = ""
        self.cut_off = False
        """Whether the file ends inside a line or inside its compression, as after the recorder was killed."""
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "a recording is a regular file", str(path))
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
