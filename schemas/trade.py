"""One trade, and the fields of its stream entry."""

from collections.abc import Mapping

import msgspec

from bookbus.schemas.snapshot import Microseconds, PositiveNumber, Side


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
        """The fields of the stream entry, as text."""
        return {
            "price": repr(self.price),
            "quantity": repr(self.quantity),
            "aggressor": self.aggressor,
            "exchange_us": str(self.exchange_us),
            "received_us": str(self.received_us),
        }


def trade_of(exchange: str, symbol: str, native: str, entry_id: str, fields: Mapping[str, str]) -> Trade:
    """The trade in the stream entry with id `<trade id>-0`. Raises TradeError if it is not valid."""
    known = {"exchange": exchange, "symbol": symbol, "native": native, "trade_id": entry_id.partition("-")[0]}
    try:
        return msgspec.convert({**fields, **known}, Trade, strict=False)
    except msgspec.ValidationError as error:
        raise TradeError(f"entry {entry_id} of {exchange}:{symbol} is no trade: {error}") from error
