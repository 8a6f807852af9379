"""What exchanges change without notice and still is unambiguous: units of times, further elements of levels."""

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.schemas.decoding import DECODE_ERRORS

Timestamp = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A time since 1970 in the unit that the exchange uses today."""

EXTRA_ELEMENTS = "level elements after price and quantity"
"""What is ignored of a book whose levels have more than two elements."""

OTHER_FORMAT = "unusual spelling of fields"
"""What is ignored of a message that is readable, but not as the exchange documents it."""


def microseconds(time: int) -> int:
    """A time in microseconds, whichever of s, ms, microseconds and ns it is in; their ranges do not overlap.

    A time in none of these ranges is taken for milliseconds, which gives an implausible one.
    """
    # The years 2001 to 2128 in each unit; that of today first, since every update comes here.
    if 10**12 <= time < 5 * 10**12:
        return time * 1000
    if 10**15 <= time < 5 * 10**15:
        return time
    if 10**9 <= time < 5 * 10**9:
        return time * 1_000_000
    return time // 1000 if 10**18 <= time < 5 * 10**18 else time * 1000


def trade_number(text: str | int) -> int:
    """The id of a trade as a number below 2^63: itself, or a hash of an id that is no number, such as a UUID."""
    if isinstance(text, int):
        number = text
    elif text.isascii() and text.isdigit() and len(text) <= 19:
        number = int(text)
    else:
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
    if not 0 <= number < 2**63:
        return int.from_bytes(blake2b(str(text).encode(), digest_size=8).digest()) >> 1
    return number


def repaired(
    frame: bytes, kind: Any, repair: Callable[[dict[str, Any]], str], error: WebSocketProtocolError
) -> tuple[Any, str]:
    """A message that the strict decoder refused with `error`, and what of it is ignored.

    `repair` changes the decoded JSON in place and returns that name. Raises `error` if the result is no `kind` either.
    """
    try:
        message = msgspec.json.decode(frame)
        if not isinstance(message, dict):
            raise error
        ignored = repair(message)
        return msgspec.convert(message, kind, strict=False), ignored
    except (*DECODE_ERRORS, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise error from error.__cause__


def cut_levels(fields: dict[str, Any], *sides: str) -> str:
    """Keep price and quantity of every level. Returns EXTRA_ELEMENTS if there was more, else OTHER_FORMAT."""
    extra = False
    for side in sides:
        levels = fields[side]
        extra = extra or any(len(level) > 2 for level in levels)
        fields[side] = [level[:2] for level in levels]
    return EXTRA_ELEMENTS if extra else OTHER_FORMAT


def usable_time(value: Any) -> int:
    """A time that may be a number with a fraction or text; 0, which is implausible, for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0
    if not (math.isfinite(number) and 0 <= number < 2**63):
        return 0
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else int(number)
