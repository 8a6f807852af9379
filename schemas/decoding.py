"""Decoding bytes from outside, and what that can raise."""

from collections.abc import Callable, Iterable
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


class _Named(msgspec.Struct):
    """The name of an entry, by the field that exchanges use for it."""

    symbol: str = ""
    market: str = ""


_decode_name = msgspec.json.Decoder(_Named).decode

_SHOWN = 60
"""Characters of an entry that is shown because it has no name."""


def entry_decoder(
    kind: Any, what: str, raises: type[Exception]
) -> Callable[[Iterable[msgspec.Raw], dict[str, str]], list[Any]]:
    """A decoder for the entries of a list, each on its own, numbers as text included.

    One that is not of this type is left out and added to the second argument: its name, or how it begins, and why. If
    all are, it raises `raises` with "not {what}" and the first cause.
    """
    decode = msgspec.json.Decoder(kind, strict=False).decode

    def checked(entries: Iterable[msgspec.Raw], skipped: dict[str, str]) -> list[Any]:
        decoded, first = [], ""
        for entry in entries:
            try:
                decoded.append(decode(entry))
            except DECODE_ERRORS as error:
                skipped[_entry_name(entry)] = str(error)
                first = first or str(error)
        if first and not decoded:
            raise raises(f"not {what}: {first}")
        return decoded

    return checked


def plain_number(value: object) -> float | None:
    """A number, also one written as text; None for anything else, for one below zero and one that is not finite."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None


def _entry_name(entry: msgspec.Raw) -> str:
    try:
        named = _decode_name(entry)
    except DECODE_ERRORS:
        named = _Named()
    return named.symbol or named.market or bytes(entry).decode(errors="replace")[:_SHOWN]
