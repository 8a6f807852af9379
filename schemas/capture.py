"""One line of a recording to a frame and back."""

from typing import Literal

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS

FrameKind = Literal["ws", "http"]


class CaptureError(ValueError):
    """A line that is not one of a recording."""


class CaptureFrame(msgspec.Struct, frozen=True):
    """One WebSocket message or HTTP answer as it came: `t` in Unix seconds, `raw` its exact text."""

    t: float
    venue: str
    kind: FrameKind
    url: str
    raw: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CaptureFrame).decode


def encode_frame(frame: CaptureFrame) -> bytes:
    """One line, its newline included."""
    return _encode(frame) + b"\n"


def decode_frame(line: bytes) -> CaptureFrame:
    """The frame in one line. Raises CaptureError for anything else."""
    try:
        return _decode(line)
    except DECODE_ERRORS as error:
        raise CaptureError(f"not a recorded frame: {error}") from error
