"""Decoding bytes from outside, and what that can raise."""

from collections.abc import Callable
from typing import Any

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Malformed or unexpected data, invalid UTF-8 (msgspec raises the built-in error), and data nested too deeply."""


def json_decoder(kind: Any, what: str, raises: type[Exception]) -> Callable[[bytes], Any]:
    """A decoder for JSON of this type, numbers as text included. It raises `raises` with "not {what}" and the cause."""
    decode = msgspec.json.Decoder(kind, strict=False).decode

    def checked(text: bytes) -> Any:
        try:
            return decode(text)
        except DECODE_ERRORS as error:
            raise raises(f"not {what}: {error}") from error

    return checked
