"""Encodes and decodes the lines of a recording."""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS, entry_decoder, json_decoder
from bookbus.schemas.instruments import Instrument

LONGEST_LINE = 64 * 2**20
"""Bytes; a WebSocket message of an exchange has a quarter of that at most."""

_CHUNK = 2**16

FrameKind = Literal["ws", "http", "instruments"]


class _Readable(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class CaptureError(ValueError):
    """A line is not a valid line of a recording."""


class CaptureFrame(msgspec.Struct, frozen=True):
    """One received WebSocket message or HTTP response: `t` in Unix seconds, `raw` its exact text.

    Of kind `instruments` it is the recorder's own: the instruments of the symbols that follow, as a JSON list.
    """

    t: float
    venue: str
    kind: FrameKind
    url: str
    raw: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CaptureFrame).decode
_decode_list = json_decoder(list[msgspec.Raw], "a list of instruments", CaptureError)
_decode_instruments = entry_decoder(Instrument, "a list of instruments", CaptureError)


def encode_frame(frame: CaptureFrame) -> bytes:
    """One line, with its newline."""
    return _encode(frame) + b"\n"


def encode_instruments(instruments: Iterable[Instrument]) -> str:
    """The text of a frame of kind `instruments`."""
    return _encode(list(instruments)).decode()


def decode_instruments(text: str) -> list[Instrument]:
    """The instruments of a frame; one that cannot be read is left out. Raises CaptureError if that are all."""
    decoded: list[Instrument] = _decode_instruments(_decode_list(text.encode()), {})
    return decoded


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
