"""What a client asks of Upbit's socket: one array of objects, or an error."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

_UNIT_COUNTS = (1, 5, 15, 30)
_TYPES = ("orderbook", "trade", "ticker")
FORMATS = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")

Kind = Literal["orderbook", "trade", "ticker"]


class Refusal(NamedTuple):
    """Why the exchange ends the connection."""

    name: str
    message: str


class Form(NamedTuple):
    """How messages are written: with short keys, and as a list of one."""

    short: bool
    listed: bool


DEFAULT_FORM = Form(short=False, listed=False)


class Wish(msgspec.Struct, frozen=True):
    """Data of one type. `codes` are as the client wrote them, `.n` included."""

    kind: Kind
    codes: tuple[str, ...]
    level: float
    snapshot: bool
    realtime: bool


@dataclass(frozen=True, slots=True)
class Subscription:
    """Everything that a connection gets from now on."""

    wishes: tuple[Wish, ...]
    form: Form


@dataclass(frozen=True, slots=True)
class Listing:
    """The wish to be told what the connection is subscribed to."""

    ticket: str
    form: Form


class _RefusedError(Exception):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(name, message)


def parse_request(message: str | bytes) -> Subscription | Listing | Refusal:
    """What one message asks for."""
    try:
        return _parse(message)
    except _RefusedError as error:
        return error.refusal


def split_code(code: str) -> tuple[str, int]:
    """Market and number of levels; a number that is not offered is answered with 30."""
    market, _, suffix = code.partition(".")
    count = int(suffix) if suffix.isascii() and suffix.isdigit() else 0
    return market, count if count in _UNIT_COUNTS else _UNIT_COUNTS[-1]


def _parse(message: str | bytes) -> Subscription | Listing:
    try:
        parts = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _RefusedError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    ticket = next((part["ticket"] for part in parts if "ticket" in part), None)
    if not isinstance(ticket, str) or not ticket:
        raise _RefusedError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    form = _form(next((part["format"] for part in parts if "format" in part), "DEFAULT"))
    if any(part.get("method") == "LIST_SUBSCRIPTIONS" for part in parts):
        return Listing(ticket, form)
    wishes = tuple(_wish(part) for part in parts if "type" in part)
    if not wishes:
        raise _RefusedError("NO_TYPE", "타입이 존재하지 않습니다.")
    return Subscription(wishes, form)


def _form(name: object) -> Form:
    if name not in FORMATS:
        raise _RefusedError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    return Form(short=str(name).startswith("SIMPLE"), listed=str(name).endswith("LIST"))


def _wish(part: dict[str, Any]) -> Wish:
    kind, codes, level = part["type"], part.get("codes"), part.get("level", 0)
    if kind not in _TYPES:
        raise _RefusedError("INVALID_PARAM", f"{kind} 은 지원하지 않는 타입입니다.")
    if not isinstance(codes, list) or not codes:
        raise _RefusedError("NO_CODES", "코드가 존재하지 않습니다.")
    if not all(isinstance(code, str) for code in codes) or not isinstance(level, int | float):
        raise _RefusedError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    return Wish(
        kind,
        tuple(codes),
        float(level),
        snapshot=not part.get("is_only_realtime", False),
        realtime=not part.get("is_only_snapshot", False),
    )
