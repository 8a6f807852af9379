"""Binance spot's messages, as the exchange writes them, and its requests."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import msgspec

from bookbus.feeders.simulator.binance.settings import BinanceRules, ErrorShape
from bookbus.feeders.simulator.core.feed import BookAt
from bookbus.feeders.simulator.core.market import DECIMALS, Flush, Quote, RawLevel, SimulatedFill, SimulatedInstrument
from bookbus.schemas.decoding import DECODE_ERRORS


@cache
def _level_format(tick_decimals: int, step_decimals: int) -> tuple[str, int, int]:
    """Template of one level, units of its price and units of its quantity."""
    price, quantity = _number_template(tick_decimals), _number_template(step_decimals)
    return f'["{price}","{quantity}"]', 10**tick_decimals, 10**step_decimals


def _number_template(decimals: int) -> str:
    """For `whole, part`; a number without decimals still gets eight."""
    return f"%d.%0{decimals}d" + "0" * (DECIMALS - decimals) if decimals else "%d.%d" + "0" * (DECIMALS - 1)


def levels_text(instrument: SimulatedInstrument, levels: list[RawLevel]) -> str:
    """`["price","quantity"],…` without the outer brackets."""
    template, price, quantity = _level_format(instrument.tick_decimals, instrument.step_decimals)
    return ",".join([template % (p // price, p % price, q // quantity, q % quantity) for p, q in levels])


def quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def depth_body(instrument: SimulatedInstrument, flush: Flush) -> str:
    return f'"b":[{levels_text(instrument, flush.bids)}],"a":[{levels_text(instrument, flush.asks)}]'


def depth_update(instrument: SimulatedInstrument, flush: Flush, body: str, time: int) -> str:
    symbol = quoted(instrument.native)
    return f'{{"e":"depthUpdate","E":{time},"s":{symbol},"U":{flush.first_id},"u":{flush.last_id},{body}}}'


def book_text(instrument: SimulatedInstrument, book: BookAt) -> str:
    """Partial depth, and the answer to a REST request for depth."""
    bids, asks = levels_text(instrument, book.bids), levels_text(instrument, book.asks)
    return f'{{"lastUpdateId":{book.update_id},"bids":[{bids}],"asks":[{asks}]}}'


def book_ticker(instrument: SimulatedInstrument, quote: Quote) -> str:
    bid, bid_quantity, ask, ask_quantity = _quote_texts(instrument, quote)
    return (
        f'{{"u":{quote.update_id},"s":{quoted(instrument.native)},'
        f'"b":"{bid}","B":"{bid_quantity}","a":"{ask}","A":"{ask_quantity}"}}'
    )


def book_ticker_answer(instrument: SimulatedInstrument, quote: Quote) -> dict[str, str]:
    """The best levels in the form of REST."""
    names = ("bidPrice", "bidQty", "askPrice", "askQty")
    return {"symbol": instrument.native} | dict(zip(names, _quote_texts(instrument, quote), strict=True))


def trades(instrument: SimulatedInstrument, fill: SimulatedFill) -> list[Callable[[int], str]]:
    """One writer per trade, in the order of their ids."""
    return [partial(_trade, instrument, fill, trade_id, steps) for trade_id, steps in split(fill)]


def split(fill: SimulatedFill) -> list[tuple[int, int]]:
    """Id and steps of each trade."""
    parts = [fill.steps // fill.trades] * fill.trades
    parts[-1] += fill.steps - sum(parts)
    return list(enumerate(parts, fill.last_trade_id - fill.trades + 1))


def aggregate_trade(instrument: SimulatedInstrument, fill: SimulatedFill, time: int) -> str:
    return (
        f'{{"e":"aggTrade","E":{time},"s":{quoted(instrument.native)},"a":{fill.fill_id},'
        f'"p":"{instrument.price_text(fill.ticks)}","q":"{instrument.quantity_text(fill.steps)}",'
        f'"f":{fill.last_trade_id - fill.trades + 1},"l":{fill.last_trade_id},'
        f'"T":{time},"m":{_maker_is_buyer(fill)},"M":true}}'
    )


def wrapped(stream: str, payload: str) -> str:
    return f'{{"stream":{quoted(stream)},"data":{payload}}}'


def server_shutdown(time: int, *, combined: bool) -> str:
    payload = f'{{"e":"serverShutdown","E":{time}}}'
    return wrapped("!serverShutdown", payload) if combined else payload


def _trade(instrument: SimulatedInstrument, fill: SimulatedFill, trade_id: int, steps: int, time: int) -> str:
    return (
        f'{{"e":"trade","E":{time},"s":{quoted(instrument.native)},"t":{trade_id},'
        f'"p":"{instrument.price_text(fill.ticks)}","q":"{instrument.quantity_text(steps)}",'
        f'"T":{time},"m":{_maker_is_buyer(fill)},"M":true}}'
    )


def _maker_is_buyer(fill: SimulatedFill) -> str:
    return "false" if fill.aggressor == "buy" else "true"


def _quote_texts(instrument: SimulatedInstrument, quote: Quote) -> tuple[str, str, str, str]:
    """Price and quantity of the best bid, then of the best ask."""
    (bid, bid_steps), (ask, ask_steps) = quote.bid, quote.ask
    price, quantity = instrument.price_text, instrument.quantity_text
    return price(bid), quantity(bid_steps), price(ask), quantity(ask_steps)


_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_STREAM = re.compile(
    r"[^@\s/]+@(depth(5|10|20)?(@100ms|@1000ms)?|bookTicker|trade|aggTrade|blockTrade|avgPrice|miniTicker|ticker"
    r"|ticker_\w+|kline_\w+(@\+08:00)?|referencePrice)"
    r"|!(miniTicker|ticker)(_\w+)?@arr(@1000ms|@3000ms)?"
)
_MAXIMUM_TEXT_ID = 36


class ControlError(Exception):
    """An error reply to a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class ControlSession:
    """State of one connection. `streams` are its subscriptions, also those of symbols that do not exist."""

    rules: BinanceRules
    error_shape: ErrorShape
    combined: bool
    streams: dict[str, None] = field(default_factory=dict)

    def receive(self, text: str | bytes) -> str | None:
        """Act on one message. Returns the reply; None if the exchange does not answer."""
        if len(text if isinstance(text, bytes) else text.encode()) > self.rules.subscribe_bytes:
            return None
        try:
            message = msgspec.json.decode(text)
        except DECODE_ERRORS:
            return self._refuse(ControlError(3, "Invalid JSON: expected value at line 1 column 1"), None)
        if not isinstance(message, dict):
            return self._refuse(ControlError(2, "Invalid request: expected struct Request at line 1 column 1"), None)
        request_id = message.get("id")
        try:
            return _text({"result": self._act(message), "id": request_id})
        except ControlError as error:
            return self._refuse(error, request_id)

    def refuse(self, message: str, text: str | bytes) -> str:
        """The reply that refuses a request, whatever it asks for."""
        request = msgspec.json.decode(text)
        return self._refuse(ControlError(2, message), request.get("id") if isinstance(request, dict) else None)

    def _act(self, message: dict[str, Any]) -> Any:
        method = message.get("method")
        if "method" not in message:
            raise ControlError(2, "Invalid request: missing field `method` at line 1 column 73")
        if method not in _METHODS:
            expected = ", ".join(f"`{name}`" for name in _METHODS)
            text = f"Invalid request: unknown variant `{method}`, expected one of {expected} at line 1 column 28"
            raise ControlError(2, text)
        if "id" not in message or not _is_request_id(message["id"]):
            raise ControlError(2, "Invalid request: request ID must be an unsigned integer")
        parameters = message.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if not isinstance(parameters, list):
            raise ControlError(2, "Invalid request: invalid type: expected a sequence")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self._change_streams(parameters, subscribe=method == "SUBSCRIBE")
        return self._property(parameters, sets=method == "SET_PROPERTY")

    def _change_streams(self, names: list[Any], *, subscribe: bool) -> None:
        if not all(is_stream(name) for name in names):
            raise ControlError(2, "Invalid request: invalid stream")
        if subscribe:
            self.add_streams(names)
        else:
            for name in names:
                self.streams.pop(name, None)

    def add_streams(self, names: Iterable[str]) -> None:
        """Subscribe to all or, if they are too many, to none. Raises ControlError."""
        wanted = self.streams | dict.fromkeys(names)
        if len(wanted) > self.rules.streams:
            raise ControlError(2, f"Invalid request: more than {self.rules.streams} streams")
        self.streams = wanted

    def _property(self, parameters: list[Any], *, sets: bool) -> Any:
        if not parameters or not isinstance(parameters[0], str):
            raise ControlError(2, "Invalid request: property name must be a string")
        if len(parameters) > 1 + sets:
            raise ControlError(2, "Invalid request: too many parameters")
        if parameters[0] != "combined":
            raise ControlError(0, "Unknown property")
        if not sets:
            return self.combined
        if len(parameters) < 2 or not isinstance(parameters[1], bool):
            raise ControlError(1, "Invalid value type: expected Boolean")
        self.combined = parameters[1]
        return None

    def _refuse(self, error: ControlError, request_id: object) -> str:
        body: dict[str, object] = {"code": error.code, "msg": error.message}
        if self.error_shape == "nested":
            body = {"error": body}
        return _text(body if request_id is None else body | {"id": request_id})


def is_stream(name: object) -> bool:
    """Whether a name is well formed; the symbol in it need not exist."""
    return isinstance(name, str) and _STREAM.fullmatch(name) is not None


def _is_request_id(value: object) -> bool:
    if isinstance(value, str):
        # The documents say alphanumeric, but the exchange's own packages send UUIDs.
        return value.replace("-", "").isalnum() and len(value) <= _MAXIMUM_TEXT_ID
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
