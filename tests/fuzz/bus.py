"""Targets: what is read from the bus, by readers, by feeders and by those who look after both."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import hiredis

from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.readers import parse_clients
from bookbus.consumers.bus.session import BusSession, BusStream, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.feeders.bus.connection import RespConnection
from bookbus.feeders.commands.health_check import _feeder
from bookbus.schemas import wire
from bookbus.schemas.heartbeat import HeartbeatError, decode_heartbeat, parse_reader
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.trade import TradeError, trade_of
from tests.fuzz.target import Target

NAMES = RedisNames()
SYMBOL = "BTC-USDT"
SEPARATOR = b"\n--\n"
_CHUNK = 97

_HUGE = re.compile(rb"[*%~>]\d{6,}")
"""hiredis makes room for as many elements as a server announces: whose server lies may take any memory."""

_WORDS = (
    *(b"*3\r\n", b"$7\r\nmessage\r\n", b"$4\r\npong\r\n", b"$1\r\n1\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b":1\r\n"),
    *(b"-ERR x\r\n", b"+OK\r\n", b"$9\r\nsubscribe\r\n", b"$24\r\nmd:book:binance:BTC-USDT\r\n", b"-NOPERM x\r\n"),
    *(
        b"$10\r\nmd:feeders\r\n",
        b"$0\r\n\r\n",
        SEPARATOR,
        b"_\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">3\r\n",
        b"#t\r\n",
        b",1.5\r\n",
    ),
)
_WIRE_WORDS = (
    b"\x8e\xa1v\x01\xa3seq\xcf",
    b"\xcb\x7f\xf0" + bytes(6),
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xa4bids\x90",
    b"\xc0",
)


def _wire(data: bytes) -> None:
    wire.seq_of(data)
    book = wire.decode(data)
    assert wire.seq_of(data) == book.seq
    assert wire.decode(wire.encode(book)) == book


def _inspect(data: bytes) -> None:
    wire.inspect(data)


def _trade(data: bytes) -> None:
    """The entry's id in the first line, `name=value` in each other."""
    entry_id, *lines = data.decode(errors="replace").split("\n")
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    trade = trade_of("binance", SYMBOL, "BTCUSDT", entry_id, fields)
    assert trade_of("binance", SYMBOL, "BTCUSDT", f"{trade.trade_id}-0", trade.fields()) == trade


def _table() -> BusTable:
    table = BusTable("binance", NAMES)
    table.add([table.book(SYMBOL)])
    return table


def _fed(data: bytes) -> Callable[[], Any]:
    if _HUGE.search(data):
        raise hiredis.ProtocolError("not tried")
    reader = hiredis.Reader()
    reader.feed(data)

    def gets() -> Any:
        try:
            return reader.gets()
        except TypeError as error:
            # A map with a key that can be none: what surrounds a session takes it for the same.
            raise hiredis.ProtocolError(str(error)) from error

    return gets


def _stream(data: bytes) -> None:
    """What comes on the subscribed connection."""
    table = _table()
    stream = BusStream(table, lambda *_: None, lambda *_: None, 10.0)
    try:
        stream.receive(_fed(data), 11.0)
    finally:
        stream.apply(11.0)
        table.observe(table.by_symbol[SYMBOL], 12.0, "")
        stream.delay()


def _session(data: bytes) -> None:
    """Answers to questions, and between separators what comes on the subscribed connection."""
    table = BusTable("binance", NAMES)
    session = BusSession(table, SymbolNames("binance"), None, lambda *_: None, 10.0)
    for number, part in enumerate(data.split(SEPARATOR)):
        now = 11.0 + number
        if number % 2:
            try:
                session.stream.receive(_fed(part), now)
            finally:
                session.stream.apply(now)
        else:
            session.receive(_fed(part), now)
        session.tick(now)
        session.outgoing()
        session.stream.outgoing(now)
        for book in table.by_symbol.values():
            table.observe(book, now, "")


class _Transport:
    """Takes everything and sends nothing."""

    def __init__(self) -> None:
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.closed = True


def _replies(data: bytes) -> None:
    """What a server answers to a feeder."""
    if _HUGE.search(data):
        return

    async def work() -> None:
        connection = RespConnection("redis://server", 60.0)
        transport = _Transport()
        connection.connection_made(cast(asyncio.Transport, transport))
        for count in (1, 3, 2):
            connection.send(b"", count, lambda _: None)
        for start in range(0, len(data), _CHUNK):
            if not transport.closed:
                connection.data_received(data[start : start + _CHUNK])
        connection.connection_lost(None)

    _loop.run_until_complete(work())


def _registry(data: bytes) -> None:
    """The list of clients, and the fields of a reader's hash."""
    parse_clients(data)
    parse_reader("reader", data.split(b"\n"))


def _feeder_hash(data: bytes) -> None:
    """Name and fields of a feeder's hash."""
    key, *values = [*data.split(b"\n"), *[b""] * 6][:7]
    _feeder(key.decode(errors="replace"), values).rows()


_loop = asyncio.new_event_loop()

TARGETS = (
    Target("wire", _wire, (wire.WireError,), _WIRE_WORDS),
    Target("wire_inspect", _inspect, (wire.WireError,), _WIRE_WORDS),
    Target("heartbeat", decode_heartbeat, (HeartbeatError,), (b'"states":{}', b'"audit":null', b'"lines":[]')),
    Target("trade", _trade, (TradeError,), (b"\nprice=", b"\nquantity=", b"\naggressor=buy", b"-0\n")),
    Target("bus_stream", _stream, (SessionLostError, hiredis.ProtocolError), (*_WORDS, *_WIRE_WORDS)),
    Target("bus_session", _session, (SessionLostError, hiredis.ProtocolError), (*_WORDS, *_WIRE_WORDS)),
    Target("resp", _replies, (), _WORDS),
    Target("registry", _registry, (), (b"\nsymbols\n", b"\nlag_ms\n", b"\nreceived\n", b" sub=", b" omem=")),
    Target("feeder_hash", _feeder_hash, (), (b'{"updates":1}', b'[{"line":1}]')),
)
