"""Encodes and decodes the lines of a recording."""

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS

LONGEST_LINE = 64 * 2**20
"""Bytes; a WebSocket message of an exchange has a quarter of that at most."""

_CHUNK = 2**16

FrameKind = Literal["ws", "http"]


class _Readable(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class CaptureError(ValueError):
    """A line is not a valid line of a recording."""


class CaptureFrame(msgspec.Struct, frozen=True):
    """One received WebSocket message or HTTP response: `t` in Unix seconds, `raw` its exact text."""

    t: float
    venue: str
    kind: FrameKind
    url: str
    raw: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CaptureFrame).decode


def encode_frame(frame: CaptureFrame) -> bytes:
    """One line, with its newline."""
    return _encode(frame) + b"\n"


def decode_frame(line: bytes) -> CaptureFrame:
    """The frame of one line. Raises CaptureError if it is not valid."""
    try:
        return _decode(line)
    except DECODE_ERRORS as error:
        raise CaptureError(f"not a recorded frame: {error}") from error


def bounded_lines(file: _Readable) -> Iterator[bytes]:
    """The lines of a file. Of one that is longer than LONGEST_LINE only its first byte and its newline."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            first, rest = line[:1], line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(_CHUNK)
            line = first + rest[-1:]
        yield line
