"""Encodes and decodes snapshots in msgpack: wire format version 1."""

from operator import gt, itemgetter, lt
from typing import Any

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

HEAD = b"\x8e\xa1v\x01\xa3seq\xcf"
"""The bytes before the 8 bytes of `seq`: map of 14, `v` = 1, the key `seq` and the marker of a uint64."""

_PUBLISHED = b"\xacpublished_us\xcf"
_SEQ_START = len(HEAD)
_BODY_START = _SEQ_START + 8


class WireError(ValueError):
    """The bytes are not a book of wire format version 1."""


class _Body(msgspec.Struct, frozen=True):
    """The fields after `seq`, in wire order."""

    exchange: str
    symbol: str
    native: str
    state: str
    update_id: int
    exchange_us: int | None
    received_us: int
    published_us: int
    feeder: str
    depth: int
    bids: Levels
    asks: Levels


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OrderBookSnapshot).decode


def encode_body(book: OrderBookSnapshot, feeder: str, published_us: int) -> bytes:
    """The bytes after `seq`, which the publish script assigns."""
    return _encode(
        _Body(
            book.exchange,
            book.symbol,
            book.native,
            book.state,
            book.update_id,
            book.exchange_us,
            book.received_us,
            published_us,
            feeder,
            book.depth,
            book.bids,
            book.asks,
        )
    )[1:]


def encode(book: OrderBookSnapshot) -> bytes:
    """The complete message, as the publish script assembles it."""
    return HEAD + book.seq.to_bytes(8, "big") + encode_body(book, book.feeder, book.published_us)


def decode(data: bytes) -> OrderBookSnapshot:
    """The book in `data`, without unknown keys. Raises WireError if it is not a valid book."""
    try:
        book = _decode(data)
    except DECODE_ERRORS as error:
        raise WireError(f"not a book of wire format 1: {error}") from error
    if data.startswith(HEAD):
        if book.seq != int.from_bytes(data[_SEQ_START:_BODY_START], "big"):
            raise WireError("not a book of wire format 1: it has two seqs")
    elif not {"v", "seq"} <= inspect(data).keys():
        raise WireError("not a book of wire format 1: it has no version or no seq")
    if not _in_order(book):
        raise WireError(f"levels out of order in {book.exchange}:{book.symbol} update {book.update_id}")
    return book


def seq_of(data: bytes) -> int:
    """`seq` alone: without decoding if `data` begins with HEAD, else from the decoded book."""
    if data[:_SEQ_START] == HEAD and len(data) > _BODY_START:
        return int.from_bytes(data[_SEQ_START:_BODY_START], "big")
    return decode(data).seq


def published_us_of(data: bytes) -> int:
    """`published_us` alone: without decoding where it is a uint64, as feeders write it. Raises WireError."""
    start = data.find(_PUBLISHED) + len(_PUBLISHED)
    if start >= len(_PUBLISHED) and len(data) >= start + 8:
        return int.from_bytes(data[start : start + 8], "big")
    return decode(data).published_us


def inspect(data: bytes) -> dict[str, Any]:
    """Any msgpack map, for tools that also show what `decode` rejects. Raises WireError for other data."""
    import msgpack

    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a map or list as a key
        raise WireError(f"not a readable msgpack map: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise WireError(f"a msgpack {type(value).__name__}, not a map")
    return value


_price = itemgetter(0)


def _in_order(book: OrderBookSnapshot) -> bool:
    bids = tuple(map(_price, book.bids))
    asks = tuple(map(_price, book.asks))
    if book.state == "live" and bids and asks and bids[0] >= asks[0]:
        return False
    return all(map(gt, bids, bids[1:])) and all(map(lt, asks, asks[1:]))
