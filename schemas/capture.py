"""Encodes and decodes the lines of a recording."""

from typing import Literal

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS

FrameKind = Literal["ws", "http"]


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
