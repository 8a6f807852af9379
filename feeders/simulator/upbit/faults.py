"""What can go wrong with one message of Upbit's, each fault one function."""

from collections.abc import Callable
from typing import Any

import msgspec

from bookbus.feeders.simulator.core.connection import encode_frame
from bookbus.feeders.simulator.core.faults import (
    FrameFault,
    PendingFrame,
    drop,
    duplicate,
    invalid_utf8,
    malformed_json,
    oversized,
    reorder,
    replay_old,
)


def text(frame: PendingFrame) -> list[bytes]:
    """It comes as a text message."""
    frame.played = True
    return [encode_frame(frame.text.encode())]


def unknown_type(frame: PendingFrame) -> list[bytes]:
    """A message of an unknown type comes first."""
    return frame.with_extra(b'{"type":"somethingNew","code":"KRW-BTC","timestamp":1700000000000,"x":[1,2]}')


def array_frame(frame: PendingFrame) -> list[bytes]:
    """A message that is an array of something unknown comes first."""
    return frame.with_extra(b'[{"type":"somethingNew","code":"KRW-BTC"}]')


def same_time(frame: PendingFrame) -> list[bytes]:
    """Another book with the same time comes just before it."""

    def enlarge(payload: dict[str, Any]) -> None:
        unit = _units(payload)[0]
        unit[_name(payload, "bid_size", "bs")] += 1.0

    return [*_edited(frame, enlarge), frame.as_is()]


def crossed(frame: PendingFrame) -> list[bytes]:
    """The best bid is above the best ask."""

    def cross(payload: dict[str, Any]) -> None:
        unit = _units(payload)[0]
        unit[_name(payload, "bid_price", "bp")] = unit[_name(payload, "ask_price", "ap")] * 1.01

    return _edited(frame, cross)


def empty_side(frame: PendingFrame) -> list[bytes]:
    """It has no bids."""

    def empty(payload: dict[str, Any]) -> None:
        for unit in _units(payload):
            unit[_name(payload, "bid_price", "bp")] = unit[_name(payload, "bid_size", "bs")] = 0

    return _edited(frame, empty)


def out_of_order(frame: PendingFrame) -> list[bytes]:
    """Its levels come the worst first."""
    return _edited(frame, lambda payload: _units(payload).reverse())


def nan_price(frame: PendingFrame) -> list[bytes]:
    return _edited(frame, lambda payload: _spoil(payload, "bid_price", "bp", "NaN"))


def negative_price(frame: PendingFrame) -> list[bytes]:
    return _edited(frame, lambda payload: _spoil(payload, "bid_price", "bp", -1))


def negative_quantity(frame: PendingFrame) -> list[bytes]:
    return _edited(frame, lambda payload: _spoil(payload, "bid_size", "bs", -1))


def wrong_types(frame: PendingFrame) -> list[bytes]:
    """Its time is a text."""

    def spoil(payload: dict[str, Any]) -> None:
        name = _name(payload, "timestamp", "tms")
        payload[name] = f"no. {payload[name]}"

    return _edited(frame, spoil)


def missing_field(frame: PendingFrame) -> list[bytes]:
    """Its time is not there."""
    return _edited(frame, lambda payload: payload.pop(_name(payload, "timestamp", "tms")))


UPBIT_FRAME_FAULTS: dict[str, FrameFault] = {
    play.__name__: play
    for play in (
        *(drop, duplicate, reorder, replay_old, same_time),
        *(malformed_json, invalid_utf8, text, oversized, unknown_type, array_frame),
        *(crossed, empty_side, out_of_order, nan_price, negative_price, negative_quantity),
        *(wrong_types, missing_field),
    )
}


def _edited(frame: PendingFrame, change: Callable[[dict[str, Any]], object]) -> list[bytes]:
    """The message with its book changed, in a list or not; a trade stays as it is."""
    message = msgspec.json.decode(frame.text)
    payload = message[0] if isinstance(message, list) else message
    if _name(payload, "orderbook_units", "obu") not in payload:
        return [frame.as_is()]
    frame.played = True
    change(payload)
    return [frame.encoded(msgspec.json.encode(message))]


def _name(payload: dict[str, Any], long: str, short: str) -> str:
    return short if "ty" in payload else long


def _units(payload: dict[str, Any]) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = payload[_name(payload, "orderbook_units", "obu")]
    return units


def _spoil(payload: dict[str, Any], long: str, short: str, value: object) -> None:
    _units(payload)[0][_name(payload, long, short)] = value
