"""Wire format version 1, against golden files and another msgpack library."""

from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas import wire
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from tests.support.builders import book

KEYS = (
    "v",
    "seq",
    "exchange",
    "symbol",
    "native",
    "state",
    "update_id",
    "exchange_us",
    "received_us",
    "published_us",
    "feeder",
    "depth",
    "bids",
    "asks",
)

GOLDEN = Path(__file__).parent / "golden"

BOOKS = {
    "live": book(
        seq=1_700_000_000_000_042,
        update_id=9_007_199_254_740_991,
        feeder="binance-7f3a",
        bids=((64_999.99, 0.12345), (64_999.98, 1.5)),
        asks=((65_000.01, 0.00077), (65_000.02, 2.25)),
    ),
    "suspect": book(seq=7, state="suspect", bids=((101.0, 1.0),), asks=((100.0, 2.0),)),
    "no_exchange_time": book(seq=8, exchange_us=None),
    "one_sided": book("XRP-BTC", seq=9, asks=()),
    "non_ascii": book("币安人生-USDT", seq=10, native="币安人生USDT"),
    "whole_numbers": book(
        "BTC-KRW",
        exchange="upbit",
        native="KRW-BTC",
        seq=2**64 - 1,
        bids=((98_000_000.0, 1.0),),
        asks=((98_001_000.0, 2.0),),
    ),
}


def packed_by_msgpack(book: OrderBookSnapshot) -> bytes:
    """The message put together with the `msgpack` package, `seq` in its fixed width."""
    parts = [b"\x8e"]
    for name in KEYS:
        value = getattr(book, name)
        parts.append(msgpack.packb(name))
        parts.append(b"\xcf" + value.to_bytes(8, "big") if name == "seq" else msgpack.packb(value))
    return b"".join(parts)


def foreign(**changes: Any) -> bytes:
    """A message that another writer could have sent: the golden `live` book with keys replaced or added."""
    fields = msgpack.unpackb(packed_by_msgpack(BOOKS["live"])) | changes
    return bytes(msgpack.packb(fields))


def side(best: float, step: float, quantities: list[float]) -> Levels:
    return tuple((best + index * step, quantity) for index, quantity in enumerate(quantities))


quantities = st.lists(st.floats(min_value=1e-8, max_value=1e9), max_size=25)
letters = "AZ09-_: \0\x7fé币\U0001f600"
names = st.text(letters, min_size=1, max_size=12)


@st.composite
def books(draw: st.DrawFn) -> OrderBookSnapshot:
    best_bid = draw(st.floats(min_value=1_000.0, max_value=1e9))
    return OrderBookSnapshot(
        seq=draw(st.integers(0, 2**64 - 1)),
        exchange=draw(names),
        symbol=draw(names),
        native=draw(names),
        state=draw(st.sampled_from(["live", "suspect", "closed"])),
        update_id=draw(st.integers(0, 2**53 - 1)),
        exchange_us=draw(st.none() | st.integers(0, 2**53)),
        received_us=draw(st.integers(0, 2**53)),
        published_us=draw(st.integers(0, 2**53)),
        feeder=draw(st.text(letters, max_size=20)),
        depth=draw(st.integers(1, 5_000)),
        bids=side(best_bid, -1.5, draw(quantities)),
        asks=side(best_bid + 0.5, 1.5, draw(quantities)),
    )


@pytest.mark.parametrize("name", BOOKS)
def test_golden_file_is_what_both_libraries_write(name: str) -> None:
    golden = (GOLDEN / f"{name}.msgpack").read_bytes()

    assert wire.encode(BOOKS[name]) == golden
    assert packed_by_msgpack(BOOKS[name]) == golden


@pytest.mark.parametrize("name", BOOKS)
def test_golden_file_decodes_to_its_book(name: str) -> None:
    assert wire.decode((GOLDEN / f"{name}.msgpack").read_bytes()) == BOOKS[name]


def test_every_golden_file_has_its_book() -> None:
    assert {path.stem for path in GOLDEN.glob("*.msgpack")} == set(BOOKS)


def test_head_is_the_constant_of_the_contract() -> None:
    assert wire.encode(book(seq=258))[:17] == bytes.fromhex("8ea17601a3736571cf0000000000000102")


def test_body_is_what_follows_seq() -> None:
    sent = book(seq=5, feeder="A", published_us=77)

    body = wire.encode_body(sent, "A", 77)

    assert wire.HEAD + (5).to_bytes(8, "big") + body == wire.encode(sent)


@given(books())
def test_what_was_encoded_decodes_to_the_same_book(sent: OrderBookSnapshot) -> None:
    assert wire.decode(wire.encode(sent)) == sent


@given(books())
def test_both_libraries_write_the_same_bytes(sent: OrderBookSnapshot) -> None:
    assert wire.encode(sent) == packed_by_msgpack(sent)


@given(st.floats(min_value=1e-300, max_value=1e300), st.floats(min_value=1e-300, max_value=1e300))
def test_numbers_arrive_bit_for_bit(price: float, quantity: float) -> None:
    arrived = wire.decode(wire.encode(book(bids=((price, quantity),), asks=())))

    assert arrived.bids == ((price, quantity),)


def test_unknown_keys_are_ignored() -> None:
    assert wire.decode(foreign(checksum=12, extra={"a": [1]})) == BOOKS["live"]


def test_keys_may_come_in_any_order() -> None:
    fields = msgpack.unpackb(wire.encode(BOOKS["live"]))

    assert wire.decode(msgpack.packb(dict(reversed(fields.items())))) == BOOKS["live"]


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_unknown_version_is_refused(version: object) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(foreign(v=version))


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("published_us", "feeder")])
def test_missing_key_is_refused(name: str) -> None:
    fields = msgpack.unpackb(wire.encode(BOOKS["live"]))
    del fields[name]

    with pytest.raises(wire.WireError):
        wire.decode(msgpack.packb(fields))


@pytest.mark.parametrize(
    "bids",
    [
        pytest.param([[99.0, 1.0], [99.5, 1.0]], id="ascending bids"),
        pytest.param([[99.5, 1.0], [99.5, 1.0]], id="the same level twice"),
        pytest.param([[99.5, 2.0], [99.5, 1.0]], id="one price with two quantities"),
        pytest.param([[0.0, 1.0]], id="price of zero"),
        pytest.param([[-1.0, 1.0]], id="negative price"),
        pytest.param([[99.5, 0.0]], id="quantity of zero"),
        pytest.param([[99.5, -1.0]], id="negative quantity"),
        pytest.param([[float("nan"), 1.0]], id="price not a number"),
        pytest.param([[99.5, float("nan")]], id="quantity not a number"),
        pytest.param([[float("inf"), 1.0]], id="infinite price"),
        pytest.param([["99.5", "1"]], id="numbers as text"),
        pytest.param([[True, True]], id="truth values"),
        pytest.param([[99.5]], id="level without quantity"),
        pytest.param([[99.5, 1.0, 1.0]], id="level of three"),
        pytest.param({"99.5": 1.0}, id="levels as a map"),
        pytest.param(None, id="no levels"),
    ],
)
@pytest.mark.parametrize("state", ["live", "suspect"])
def test_levels_that_are_not_a_side_of_a_book_are_refused(bids: object, state: str) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(foreign(bids=bids, asks=[], state=state))


def test_descending_asks_are_refused() -> None:
    with pytest.raises(wire.WireError, match="levels out of order"):
        wire.decode(foreign(asks=[[65_002.0, 1.0], [65_001.0, 1.0]]))


@pytest.mark.parametrize("ask", [99.0, 100.0])
def test_live_book_that_is_crossed_or_locked_is_refused(ask: float) -> None:
    with pytest.raises(wire.WireError, match="levels out of order"):
        wire.decode(wire.encode(book(bids=((100.0, 1.0),), asks=((ask, 1.0),))))


def test_suspect_book_may_be_crossed() -> None:
    crossed = book(state="suspect", bids=((100.0, 1.0),), asks=((99.0, 1.0),))

    assert wire.decode(wire.encode(crossed)) == crossed


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "stale"},
        {"update_id": 2**53},
        {"update_id": -1},
        {"update_id": 1.0},
        {"depth": 0},
        {"seq": -1},
        {"received_us": None},
        {"exchange_us": "1700000000"},
        {"symbol": b"BTC-USDT"},
    ],
    ids=str,
)
def test_value_outside_its_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(foreign(**changes))


HOSTILE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x01", id="a number"),
    pytest.param(b"\xc1", id="a byte that msgpack never uses"),
    pytest.param(b"GET / HTTP/1.1\r\n", id="text"),
    pytest.param(b'{"v":1}', id="JSON"),
    pytest.param(b"\x91" * 200_000, id="nesting without end"),
    pytest.param(b"\x81\xa1x" + b"\x91" * 200_000, id="nesting without end under an unknown key"),
    pytest.param(b"\xdd\xff\xff\xff\xff", id="an array said to hold four billion values"),
    pytest.param(b"\x81\xa4bids\xdd\xff\xff\xff\xff", id="a side said to hold four billion levels"),
    pytest.param(b"\xdf\xff\xff\xff\xff", id="a map said to hold four billion keys"),
    pytest.param(b"\x81\x81\x01\x02\x03", id="a map as key"),
    pytest.param(b"\x81\xa6symbol\xa2\xff\xfe", id="text that is not UTF-8"),
    pytest.param(wire.HEAD, id="the head alone"),
    pytest.param(wire.encode(book())[:-1], id="a message cut short"),
    pytest.param(wire.encode(book()) + b"\x00", id="a message with a byte too many"),
]


@pytest.mark.parametrize("data", HOSTILE)
def test_foreign_bytes_are_refused_with_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(st.data())
def test_damaged_message_decodes_in_order_or_is_refused(data: st.DataObject) -> None:
    message = bytearray(wire.encode(BOOKS["live"]))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))

    try:
        arrived = wire.decode(bytes(message))
    except wire.WireError:
        return

    assert [price for price, _ in arrived.bids] == sorted({price for price, _ in arrived.bids}, reverse=True)
    assert [price for price, _ in arrived.asks] == sorted({price for price, _ in arrived.asks})


@given(st.integers(0, 2**64 - 1))
def test_seq_is_read_without_decoding(seq: int) -> None:
    assert wire.seq_of(wire.encode(book(seq=seq))) == seq


def test_seq_is_read_from_a_map_with_another_head() -> None:
    assert wire.seq_of(foreign(seq=5, extra=1)) == 5


def test_seq_of_foreign_bytes_is_refused() -> None:
    with pytest.raises(wire.WireError):
        wire.seq_of(b"\x8e\xa1v\x02")


def test_inspection_shows_what_does_not_fit_the_type() -> None:
    assert wire.inspect(foreign(v=2, bids="?", extra=1)).items() >= {"v": 2, "bids": "?", "extra": 1}.items()


@given(st.binary(max_size=300) | st.sampled_from([parameter.values[0] for parameter in HOSTILE]))
def test_inspection_gives_a_map_or_a_wire_error(data: Any) -> None:
    try:
        shown = wire.inspect(data)
    except wire.WireError:
        return

    assert isinstance(shown, dict)


def test_a_book_that_names_two_seqs_is_refused() -> None:
    data = wire.encode(book(seq=7, feeder="A"))
    feeder, second_seq = b"\xa6feeder\xa1A", b"\xa3seq\x08"

    assert feeder in data
    with pytest.raises(wire.WireError, match="two seqs"):
        wire.decode(data.replace(feeder, second_seq))
