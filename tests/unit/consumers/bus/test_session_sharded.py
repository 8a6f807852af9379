"""A node of a cluster: which commands follow its books, and what its replies mean."""

from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from bookbus.consumers.bus.books import BusTable, NodeTable
from bookbus.consumers.bus.session import BusSession, BusStream, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.heartbeat import FeederHeartbeat, encode_heartbeat
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import encode
from tests.support.builders import book

NAMES = RedisNames()
BTC, ETH = (NAMES.book("binance", symbol).encode() for symbol in ("BTC-USDT", "ETH-USDT"))
FEEDERS = NAMES.feeders.encode()
PRIMARY = [b"master", 0, []]


def replies(*values: Any) -> Callable[[], Any]:
    waiting = deque(values)
    return lambda: waiting.popleft() if waiting else False


def session(table: BusTable, *symbols: str) -> BusSession:
    return BusSession(table, SymbolNames("binance"), symbols, lambda *_: None, 10.0, sharded=True)


def test_each_book_is_subscribed_by_itself_and_heartbeats_as_everywhere() -> None:
    node = session(BusTable("binance", NAMES), "BTC-USDT", "ETH-USDT")

    assert node.stream.outgoing(10.0) == [
        ("SUBSCRIBE", FEEDERS),
        ("PING", b"1"),
        ("SSUBSCRIBE", BTC),
        ("SSUBSCRIBE", ETH),
    ]


def test_a_node_is_not_asked_for_what_another_one_has() -> None:
    node = session(BusTable("binance", NAMES), "BTC-USDT")

    node.write_heartbeat("md:consumer:x", [("lag", "1")], 5, 10.0)

    assert node.outgoing() == [("TIME",), ("ROLE",)]


def test_its_messages_and_confirmations_are_those_of_its_own_channels() -> None:
    table = BusTable("binance", NAMES)
    node = session(table, "BTC-USDT")
    node.stream.receive(replies([b"subscribe", FEEDERS, 1], [b"pong", b"1"], [b"ssubscribe", BTC, 1]), 10.0)
    node.receive(replies([b"1", b"0"], PRIMARY, [None, None, None, None]), 10.0)

    node.stream.receive(replies([b"smessage", BTC, encode(book(seq=3))]), 11.0)
    node.stream.apply(11.0)

    assert node.ready
    newest = table.book("BTC-USDT").newest
    assert newest is not None
    assert newest.seq == 3


def test_heartbeats_come_by_the_ordinary_channel() -> None:
    table = BusTable("binance", NAMES)
    node = session(table)
    beat = FeederHeartbeat(
        feeder="A", exchange="binance", endpoint="", states={}, host="", pid=1, started_us=0, time_us=0
    )

    node.stream.receive(replies([b"subscribe", FEEDERS, 1], [b"message", FEEDERS, encode_heartbeat(beat)]), 20.0)

    assert table.feeders.alive("A", "binance", "BTC-USDT", 21.0) is True


def test_a_channel_that_the_node_gives_up_ends_the_session() -> None:
    stream = BusStream(BusTable("binance", NAMES), lambda *_: None, lambda *_: None, 0.0, sharded=True)

    with pytest.raises(SessionLostError, match="md:book:binance:BTC-USDT is served by another node now"):
        stream.receive(replies([b"sunsubscribe", BTC, 0]), 11.0)


def test_a_hash_that_is_another_nodes_ends_the_session() -> None:
    node = session(BusTable("binance", NAMES), "BTC-USDT")
    node.stream.receive(replies([b"subscribe", FEEDERS, 1], [b"pong", b"1"], [b"ssubscribe", BTC, 1]), 10.0)

    with pytest.raises(SessionLostError, match="MOVED"):
        node.receive(replies([b"1", b"0"], PRIMARY, hiredis.ReplyError("MOVED 42 there:7000")), 11.0)


def test_books_that_come_later_are_followed_too_and_the_others_left_alone() -> None:
    node = session(BusTable("binance", NAMES), "BTC-USDT")
    node.stream.outgoing(10.0)

    node.follow(["BTC-USDT", "ETH-USDT"], 11.0)

    assert node.stream.outgoing(11.0) == [("SSUBSCRIBE", ETH)]


def test_the_nodes_share_books_and_heartbeats_but_each_has_its_own_clock() -> None:
    whole = BusTable("binance", NAMES)
    left, right = NodeTable(whole), NodeTable(whole)

    left.add([left.book("BTC-USDT")])
    right.add([right.book("ETH-USDT")])
    left.clock.measure(1.0, 1.0, 5_000_000)

    assert set(whole.by_symbol) == {"BTC-USDT", "ETH-USDT"}
    assert (set(left.by_channel), set(right.by_channel)) == ({BTC}, {ETH})
    assert right.book("BTC-USDT") is left.book("BTC-USDT")
    assert left.feeders is right.feeders is whole.feeders
    assert right.clock.local(5_000_000) is None


def test_a_node_that_leaves_the_cluster_makes_no_other_deaf() -> None:
    whole = BusTable("binance", NAMES)
    left, right = NodeTable(whole), NodeTable(whole)
    for node in (left, right):
        node.feeders.listen(1.0, node)

    right.feeders.stop_listening(right)
    assert whole.feeders.alive("A", "binance", "BTC-USDT", 10.0) is False
    left.feeders.stop_listening(left)
    assert whole.feeders.alive("A", "binance", "BTC-USDT", 10.0) is None
