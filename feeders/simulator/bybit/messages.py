"""Bybit's public WebSocket messages: books, changes, trades; and its requests."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from bookbus.feeders.simulator.core.feed import BookAt
from bookbus.feeders.simulator.core.market import RawLevel, SimulatedFill, SimulatedInstrument
from bookbus.schemas.decoding import DECODE_ERRORS

_PUSHED_AFTER = 5
"""Milliseconds between the matching engine's time (`cts`) and that of a message (`ts`)."""

_BLOCK, _RPI, _PERIOD = 0, 3, 6
"""After which fills of a period there is a trade of another kind."""
_OTHER_IDS = 10**18


def snapshot(topic: str, instrument: SimulatedInstrument, book: BookAt, sequence: int, time_ms: int) -> str:
    """`time_ms` is the matching engine's."""
    return _book(topic, "snapshot", instrument, book, sequence, time_ms)


def delta(
    topic: str, instrument: SimulatedInstrument, before: BookAt, book: BookAt, sequence: int, time_ms: int
) -> str:
    """Changes between two books; a level that left the topic's depth counts as removed."""
    bids = sorted(_changes(before.bids, book.bids), reverse=True)
    asks = sorted(_changes(before.asks, book.asks))
    return _book(topic, "delta", instrument, BookAt(book.update_id, bids, asks), sequence, time_ms)


def book_answer(instrument: SimulatedInstrument, book: BookAt, sequence: int, time_ms: int) -> dict[str, object]:
    sides = (
        [[instrument.price_text(ticks), instrument.quantity_text(steps)] for ticks, steps in side]
        for side in (book.bids, book.asks)
    )
    bids, asks = sides
    times = {"ts": time_ms + _PUSHED_AFTER, "cts": time_ms}
    return {"s": instrument.native, "b": bids, "a": asks, "u": book.update_id, "seq": sequence, **times}


def trades(
    topic: str, instrument: SimulatedInstrument, fills: Iterable[SimulatedFill], sequence: int, time_ms: int, most: int
) -> list[str]:
    """Messages of up to `most` trades each. Now and then there is a block or RPI trade, which changes no book."""
    data = [
        trade
        for fill in fills
        for trade in (_trade(instrument, fill, sequence, time_ms), *_beside(instrument, fill, sequence, time_ms))
    ]
    message = {"topic": topic, "ts": time_ms + _PUSHED_AFTER, "type": "snapshot"}
    return [
        msgspec.json.encode(message | {"data": data[start : start + most]}).decode()
        for start in range(0, len(data), most)
    ]


def _trade(instrument: SimulatedInstrument, fill: SimulatedFill, sequence: int, time_ms: int) -> dict[str, object]:
    return {
        "i": str(fill.fill_id),
        "T": time_ms,
        "p": instrument.price_text(fill.ticks),
        "v": instrument.quantity_text(fill.steps),
        "S": "Buy" if fill.aggressor == "buy" else "Sell",
        "s": instrument.native,
        "BT": False,
        "RPI": False,
        "seq": sequence,
    }


def _beside(
    instrument: SimulatedInstrument, fill: SimulatedFill, sequence: int, time_ms: int
) -> Iterator[dict[str, object]]:
    """A large block trade at a price of its own, or an RPI trade; their ids are no fill's."""
    place = fill.fill_id % _PERIOD
    if place == _BLOCK:
        block = fill._replace(ticks=max(1, fill.ticks * 99 // 100), steps=fill.steps * 1000)
        yield _trade(instrument, block, sequence, time_ms) | {"i": str(_OTHER_IDS + fill.fill_id), "BT": True}
    elif place == _RPI:
        yield _trade(instrument, fill, sequence, time_ms) | {"i": str(_OTHER_IDS + fill.fill_id), "RPI": True}


def _book(topic: str, kind: str, instrument: SimulatedInstrument, book: BookAt, sequence: int, time_ms: int) -> str:
    bids, asks = _levels(instrument, book.bids), _levels(instrument, book.asks)
    return (
        f'{{"topic":"{topic}","type":"{kind}","ts":{time_ms + _PUSHED_AFTER},"data":{{"s":"{instrument.native}",'
        f'"b":[{bids}],"a":[{asks}],"u":{book.update_id},"seq":{sequence}}},"cts":{time_ms}}}'
    )


def _levels(instrument: SimulatedInstrument, levels: Iterable[RawLevel]) -> str:
    price, quantity = instrument.price_text, instrument.quantity_text
    return ",".join([f'["{price(ticks)}","{quantity(steps) if steps else 0}"]' for ticks, steps in levels])


def _changes(before: Iterable[RawLevel], after: Iterable[RawLevel]) -> list[RawLevel]:
    was, now = dict(before), dict(after)
    gone = [(ticks, 0) for ticks in was if ticks not in now]
    return gone + [(ticks, steps) for ticks, steps in now.items() if was.get(ticks) != steps]


_OPERATIONS = ("subscribe", "unsubscribe", "ping")

KnowsTopic = Callable[[str], bool]


class Request(msgspec.Struct):
    """One message of a client."""

    op: str = ""
    req_id: str | int = ""
    args: list[str] = []


class Reply(NamedTuple):
    """The text to send; `topics` are those of an accepted request."""

    text: str
    request: Request
    topics: tuple[str, ...] = ()


def answer(message: str | bytes, connection_id: str, most: int, has: Collection[str], knows: KnowsTopic) -> Reply:
    """The reply to one message of a client that `has` these topics; a request may name `most` topics."""
    try:
        request = msgspec.json.decode(message, type=Request)
    except DECODE_ERRORS as error:
        return refuse(Request(), connection_id, f"Failed to decode incoming data:{error}")
    error_text = _error(request, most, has, knows)
    if error_text is not None:
        return refuse(request, connection_id, error_text)
    if request.op == "ping":
        return Reply(_text(request, connection_id, "pong", success=True), request)
    return Reply(_text(request, connection_id, request.op, success=True), request, tuple(dict.fromkeys(request.args)))


def refuse(request: Request, connection_id: str, error_text: str) -> Reply:
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
