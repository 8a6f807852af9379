"""Capture files: written by a recorder, read frame by frame."""

import asyncio
import errno
import gzip
import itertools
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from bookbus.schemas.capture import (
    CaptureError,
    CaptureFrame,
    FrameKind,
    bounded_lines,
    decode_frame,
    encode_frame,
    encode_instruments,
)
from bookbus.schemas.instruments import Instrument
from bookbus.schemas.redis_url import masked

logger = logging.getLogger(__name__)

_WRITE_INTERVAL = 0.5


class Recorder:
    """Writes frames as they came, in order; `.gz` in the name compresses. Frames that are no text are only counted.

    When the file cannot be written any more, as on a full disk, the recording ends and `error` says why.
    """

    def __init__(self, path: Path, exchange: str, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError if the file exists or cannot be made."""
        self.path = path
        self.frames = 0
        self.not_text = 0
        self.error = ""
        """Why the recording ended early; empty if it did not."""
        self._exchange = exchange
        self._clock = clock
        self._shown_url: dict[str, str] = {}
        self._unwritten: list[bytes] = []
        raw = path.open("xb")
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="wb")) if path.suffix == ".gz" else raw
        self._raw = raw

    def on_instruments(self, instruments: Iterable[Instrument]) -> None:
        """Record the names of symbols, before their first frame: a replay cannot split `BTCPLN` without them."""
        if not self.error:
            self._add("instruments", "", encode_instruments(instruments))

    def on_frame(self, url: str, message: bytes) -> None:
        """Record one WebSocket message; the password and the query of `url` are not recorded."""
        shown = self._shown_url.get(url)
        if shown is None:
            shown = self._shown_url[url] = masked(url)
        self._record("ws", shown, message)

    def on_answer(self, url: str, body: bytes) -> None:
        """Record one HTTP answer; `url` is one of `RestClient.url`, which holds no password."""
        self._record("http", url, body)

    async def run(self) -> None:
        """Write what has come, twice a second, until cancelled; then the rest. Returns if that fails."""
        try:
            while not self.error:
                await asyncio.sleep(_WRITE_INTERVAL)
                self._write()
        finally:
            self.close()

    def close(self) -> None:
        """Write the rest and end the file."""
        if self._raw.closed:
            return
        self._write()
        try:
            self._file.close()
            self._raw.close()
        except OSError as error:
            self._fail(error)

    def _record(self, kind: FrameKind, url: str, data: bytes) -> None:
        if self.error:
            return
        try:
            raw = data.decode()
        except UnicodeDecodeError:
            self.not_text += 1
            return
        self.frames += 1
        self._add(kind, url, raw)

    def _add(self, kind: FrameKind, url: str, raw: str) -> None:
        self._unwritten.append(encode_frame(CaptureFrame(self._clock(), self._exchange, kind, url, raw)))

    def _write(self) -> None:
        lines, self._unwritten = self._unwritten, []
        if self.error:
            return
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """End the recording; what is written stays readable."""
        if not self.error:
            self.error = (error.strerror or str(error)).lower()
            logger.error("the recording in %s ended: %s", self.path, self.error)
        self._unwritten.clear()
        for file in (self._file, self._raw):
            with suppress(OSError):
                file.close()


def unused_path(path: Path) -> Path:
    """The path itself; if that exists, the first that does not with a number: `btc.jsonl.gz`, `btc-2.jsonl.gz`, …"""
    name, dot, suffixes = path.name.partition(".")
    others = (path.with_name(f"{name}-{number}{dot}{suffixes}") for number in itertools.count(2))
    return next(each for each in itertools.chain((path,), others) if not os.path.lexists(each))


class CaptureFile:
    """Reads frames. Iterate once; `bad_lines` and `cut_off` are final after that; `frames` are the exchange's."""

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
                self.frames += frame.kind != "instruments"
                yield frame

    def _open(self) -> IO[bytes]:
        if self._compressed:
            return cast(IO[bytes], gzip.GzipFile(self.path, "rb"))
        return self.path.open("rb")


def _until_damage(lines: IO[bytes]) -> Iterator[bytes]:
    """Every line; one without its newline last if the compression breaks off."""
    try:
        yield from bounded_lines(lines)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield b""
