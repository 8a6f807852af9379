"""Faults of one message of Upbit's: a whole book with long or short field names, in a list or not."""

from typing import Any

from bookbus.feeders.simulator.core.connection import encode_frame
from bookbus.feeders.simulator.core.faults import TEXT_FAULTS, FrameFault, Payload, PendingFrame, edited


def text(frame: PendingFrame) -> list[bytes]:
    """It comes as a text message."""
    return [encode_frame(frame.text.encode())]


def unknown_type(frame: PendingFrame) -> list[bytes]:
    """A message of an unknown type comes first."""
    return frame.after(b'{"type":"somethingNew","code":"KRW-BTC","timestamp":1700000000000,"x":[1,2]}')


def array_frame(frame: PendingFrame) -> list[bytes]:
    """A message that is an array of an unknown type comes first."""
    return frame.after(b'[{"type":"somethingNew","code":"KRW-BTC"}]')


def same_time(frame: PendingFrame) -> list[bytes]:
    """Another book with the same time comes just before it."""
    return [*edited(_enlarge, _book)(frame), frame.unchanged()]


def _enlarge(_: PendingFrame, payload: Payload) -> None:
    _units(payload)[0][_name(payload, "bid_size", "bs")] += 1.0


def _crossed(_: PendingFrame, payload: Payload) -> None:
    """The best bid is above the best ask."""
    unit = _units(payload)[0]
    unit[_name(payload, "bid_price", "bp")] = unit[_name(payload, "ask_price", "ap")] * 1.01


def _empty_side(_: PendingFrame, payload: Payload) -> None:
    """It has no bids."""
    for unit in _units(payload):
        unit[_name(payload, "bid_price", "bp")] = unit[_name(payload, "bid_size", "bs")] = 0


def _out_of_order(_: PendingFrame, payload: Payload) -> None:
    """Its worst levels come first."""
    _units(payload).reverse()


def _wrong_types(_: PendingFrame, payload: Payload) -> None:
    """Its time is a string."""
    name = _name(payload, "timestamp", "tms")
    payload[name] = f"no. {payload[name]}"


def _missing_field(_: PendingFrame, payload: Payload) -> None:
    """Its time is missing."""
    payload.pop(_name(payload, "timestamp", "tms"))


def _wrong_number(long: str, short: str, value: object) -> FrameFault:
    """The best level has this value."""

    def corrupt(_: PendingFrame, payload: Payload) -> None:
        _units(payload)[0][_name(payload, long, short)] = value

    return edited(corrupt, _book)


def _book(message: Any) -> Payload | None:
    """The payload of a book; None for a trade."""
    payload: Payload = message[0] if isinstance(message, list) else message
    return payload if _name(payload, "orderbook_units", "obu") in payload else None


def _name(payload: Payload, long: str, short: str) -> str:
    return short if "ty" in payload else long


def _units(payload: Payload) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = payload[_name(payload, "orderbook_units", "obu")]
    return units


UPBIT_FRAME_FAULTS = TEXT_FAULTS | {
    "array_frame": array_frame,
    "crossed": edited(_crossed, _book),
    "empty_side": edited(_empty_side, _book),
    "missing_field": edited(_missing_field, _book),
    "nan_price": _wrong_number("bid_price", "bp", "NaN"),
    "negative_price": _wrong_number("bid_price", "bp", -1),
    "negative_quantity": _wrong_number("bid_size", "bs", -1),
    "out_of_order": edited(_out_of_order, _book),
    "same_time": same_time,
    "text": text,
    "unknown_type": unknown_type,
    "wrong_types": edited(_wrong_types, _book),
}
