"""Writes what an exchange sends to a capture file."""

import asyncio
import gzip
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from bookbus.schemas.capture import CaptureFrame, FrameKind, encode_frame

logger = logging.getLogger(__name__)

_WRITE_INTERVAL = 0.5


class Recorder:
    """Frames as they came, in order; `.gz` in the name compresses. Frames that are no text are counted, not kept."""

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
        """Keep one WebSocket message."""
        self._keep("ws", url, message)

    def on_answer(self, url: str, body: bytes) -> None:
        """Keep one HTTP answer."""
        self._keep("http", url, body)

    async def run(self) -> None:
        """Write what has come, twice a second, until cancelled; then the rest."""
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

    def _keep(self, kind: FrameKind, url: str, data: bytes) -> None:
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
