"""One trade, and the fields of its stream entry."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from bookbus.schemas.snapshot import Microseconds, PositiveNumber, Side

_SEQ = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


class TradeError(ValueError):
    """A stream entry is not a valid trade."""


class Trade(msgspec.Struct, frozen=True):
    """`aggressor` is the side of the taker; `trade_id` is the exchange's. Trades are never conflated."""

    exchange: str
    symbol: str
    native: str
    trade_id: int
    price: PositiveNumber
    quantity: PositiveNumber
    aggressor: Side
    exchange_us: Microseconds
    received_us: Microseconds

    def fields(self) -> dict[str, str]:
        """The fields of the stream entry that the feeder gives, as text."""
        return {
            "id": str(self.trade_id),
            "price": repr(self.price),
            "quantity": repr(self.quantity),
            "aggressor": self.aggressor,
            "exchange_us": str(self.exchange_us),
            "received_us": str(self.received_us),
        }


class TradeSeq(NamedTuple):
    """Number of a trade on the bus: +1 for each trade of one stream; `epoch` changes when the server lost its data."""

    epoch: int
    number: int


def seq_of(fields: Mapping[str, str]) -> TradeSeq | None:
    """The number in the fields of a stream entry; None if it has none, as from feeders of earlier versions."""
    match = _SEQ.fullmatch(fields.get("seq", ""))
    return TradeSeq(int(match[1]), int(match[2])) if match else None


def trade_of(exchange: str, symbol: str, native: str, entry_id: str, fields: Mapping[str, str]) -> Trade:
    """The trade in a stream entry. Raises TradeError if it is not valid.

    Feeders of earlier versions wrote no field `id`, but entries with the id `<trade id>-0`.
    """
    trade_id = fields.get("id") or entry_id.partition("-")[0]
    known = {"exchange": exchange, "symbol": symbol, "native": native, "trade_id": trade_id}
    try:
        return msgspec.convert({**fields, **known}, Trade, strict=False)
    except msgspec.ValidationError as error:
        raise TradeError(f"entry {entry_id} of {exchange}:{symbol} is no trade: {error}") from error
