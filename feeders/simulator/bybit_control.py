"""What a client says on Bybit's public socket, and what it hears back."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

_OPERATIONS = ("subscribe", "unsubscribe", "ping")

KnowsTopic = Callable[[str], bool]


class Request(msgspec.Struct):
    """One message of a client."""

    op: str = ""
    req_id: str = ""
    args: list[str] = []


class Reply(NamedTuple):
    """What to send back; `topics` are to be joined or left, none of them unless the request was accepted."""

    text: str
    request: Request
    topics: tuple[str, ...] = ()


def answer(message: str | bytes, connection_id: str, most: int, has: Collection[str], knows: KnowsTopic) -> Reply:
    """The reply to one message of a client that `has` these topics; `most` of them may be in one request."""
    try:
        request = msgspec.json.decode(message, type=Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return refuse(Request(), connection_id, f"Failed to decode incoming data:{error}")
    error_text = _error(request, most, has, knows)
    if error_text is not None:
        return refuse(request, connection_id, error_text)
    if request.op == "ping":
        return Reply(_text(request, connection_id, "pong", success=True), request)
    return Reply(_text(request, connection_id, request.op, success=True), request, tuple(dict.fromkeys(request.args)))


def refuse(request: Request, connection_id: str, error_text: str) -> Reply:
    """The reply to a request of which nothing comes, whatever else it names."""
    return Reply(_text(request, connection_id, error_text, success=False), request)


def _error(request: Request, most: int, has: Collection[str], knows: KnowsTopic) -> str | None:
    if request.op not in _OPERATIONS:
        return "error:invalid op"
    if request.op == "ping":
        return None
    if len(request.args) > most:
        return f"args size >{most}"
    for topic in request.args:
        if not knows(topic):
            return f"error:handler not found,topic:{topic}"
        if request.op == "subscribe" and topic in has:
            return f"error:already subscribed,topic:{topic}"
    return None


def _text(request: Request, connection_id: str, message: str, *, success: bool) -> str:
    body = {
        "success": success,
        "ret_msg": message,
        "conn_id": connection_id,
        "req_id": request.req_id,
        "op": request.op,
    }
    return msgspec.json.encode(body).decode()
