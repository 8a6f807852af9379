"""What the replies of a subscribed connection mean, and what answers are waited for."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from bookbus import __version__
from bookbus.consumers.bus.books import BusBook, BusTable, Entry, entry_of
from bookbus.consumers.bus.reader import ConsumerIdentity, consumer_fields
from bookbus.consumers.bus.session import BusSession, BusStream, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.heartbeat import FeederHeartbeat, encode_heartbeat
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import HEAD, encode
from tests.support.builders import book

NAMES = RedisNames()
BTC = NAMES.book("binance", "BTC-USDT").encode()
FEEDERS = NAMES.feeders.encode()
PRIMARY = [b"master", 0, []]


def replies(*values: Any) -> Callable[[], Any]:
    waiting = deque(values)
    return lambda: waiting.popleft() if waiting else False


def message(seq: int, channel: bytes = BTC) -> list[bytes]:
    return [b"message", channel, encode(book(seq=seq))]


class Stream:
    """A stream that follows BTC, whose first ping is answered."""

    def __init__(self, now: float = 10.0) -> None:
        self.table = BusTable("binance", NAMES)
        self.table.clock.role(PRIMARY, now)
        self.book = self.table.book("BTC-USDT")
        self.table.add([self.book])
        self.changes: list[tuple[str, int]] = []
        self.subscribed: list[BusBook] = []
        self.stream = BusStream(
            self.table,
            lambda symbol, count: self.changes.append((symbol, count)),
            lambda book, _: self.subscribed.append(book),
            now,
        )
        self.receive(now, [b"pong", b"1"])
        self.stream.outgoing(now)

    def confirmed_at(self) -> float:
        assert self.book.newest is not None
        return self.book.newest.confirmed_at

    def receive(self, now: float, *values: Any) -> None:
        self.stream.receive(replies(*values), now)
        self.stream.apply(now)


def test_it_subscribes_to_heartbeats_and_pings_first() -> None:
    stream = BusStream(BusTable("binance", NAMES), lambda *_: None, lambda *_: None, 0.0)

    assert stream.outgoing(0.0) == [("SUBSCRIBE", FEEDERS), ("PING", b"1")]
    assert stream.outgoing(0.0) == []


def test_many_books_are_subscribed_in_several_commands() -> None:
    stream = Stream()
    books = [stream.table.book(f"S{number}-USDT") for number in range(1001)]

    stream.stream.subscribe(books, 10.0)

    assert [len(command) for command in stream.stream.outgoing(10.0)] == [501, 501, 2]


def test_messages_that_came_together_are_told_once_with_their_number() -> None:
    stream = Stream()

    stream.receive(11.0, message(1), message(2), message(3))

    assert stream.changes == [("BTC-USDT", 3)]
    assert stream.book.newest is not None
    assert stream.book.newest.seq == 3


def test_a_message_is_as_old_as_the_stream_may_be_behind() -> None:
    stream = Stream()
    stream.stream.keep_alive(11.0)

    stream.receive(12.5, message(1), [b"pong", b"2"])
    stream.receive(12.6, message(2))

    assert stream.book.previous is not None
    assert stream.book.newest is not None
    assert stream.book.previous.confirmed_at == pytest.approx(11.0)
    assert stream.book.newest.confirmed_at == pytest.approx(11.1)


def test_a_message_that_comes_before_the_answer_may_be_as_old_as_the_question() -> None:
    stream = Stream()
    stream.stream.keep_alive(11.0)

    stream.receive(12.5, message(1))

    assert stream.book.newest is not None
    assert stream.book.newest.confirmed_at == pytest.approx(11.0)


def test_bytes_that_only_begin_like_a_book_are_not_weighed_against_the_hash() -> None:
    stream = Stream()
    stream.book.await_hash()
    stream.receive(11.0, message(4), [b"message", BTC, HEAD + bytes(8) + b"corrupted"])

    stream.book.hash_read(Entry(encode(book(seq=2)), 2, 11.0, 11.0, 11.0))

    assert stream.book.newest is not None
    assert (stream.book.newest.seq, stream.book.skipped) == (4, 1)


def test_a_slow_answer_is_asked_for_again_at_once() -> None:
    stream = Stream()
    stream.stream.keep_alive(11.0)
    stream.stream.outgoing(11.0)

    stream.receive(12.5, [b"pong", b"2"])

    assert stream.stream.outgoing(12.5) == [("PING", b"3")]
    stream.receive(12.51, [b"pong", b"3"])
    assert stream.stream.lag == pytest.approx(0.01)
    assert stream.stream.outgoing(12.51) == []


def test_the_acknowledgement_of_a_channel_says_that_its_messages_come() -> None:
    stream = Stream()
    stream.stream.subscribe([stream.book], 11.0)
    assert stream.stream.waiting_since(12.0) == 10.0  # for the heartbeats

    stream.receive(12.0, [b"subscribe", FEEDERS, 1], [b"subscribe", BTC, 2])

    assert stream.subscribed == [stream.book]
    assert stream.stream.waiting_since(13.0) == 13.0


def test_a_message_that_waited_during_a_stall_may_be_as_old_as_the_stall() -> None:
    stream = Stream()
    stream.receive(11.0, message(1))

    stream.stream.stalled(12.0, 72.0)
    assert stream.stream.outgoing(72.0) == [("PING", b"2")]
    stream.receive(72.0, message(2))
    assert stream.confirmed_at() == 12.0
    stream.receive(72.1, message(3))
    assert stream.confirmed_at() == 12.0

    stream.receive(72.2, message(4), [b"pong", b"2"])
    assert stream.confirmed_at() == 12.0
    stream.receive(72.2, [b"pong", b"3"], message(5))
    assert stream.confirmed_at() == 72.2


def test_a_second_stall_before_the_reply_to_the_first_counts_from_the_first() -> None:
    stream = Stream()

    stream.stream.stalled(12.0, 14.0)
    stream.stream.stalled(14.1, 15.0)
    stream.receive(15.0, [b"pong", b"2"], message(1))
    assert stream.confirmed_at() == 12.0


def test_after_a_stall_no_feeder_is_down_before_its_heartbeats_could_be_read() -> None:
    stream = Stream()
    stream.receive(10.0, [b"subscribe", FEEDERS, 1])
    assert stream.table.feeders.alive("A", "binance", "BTC-USDT", 70.0) is False

    stream.stream.stalled(12.0, 72.0)

    assert stream.table.feeders.alive("A", "binance", "BTC-USDT", 72.0) is None


def test_heartbeats_tell_who_lives() -> None:
    stream = Stream()
    beat = FeederHeartbeat(
        feeder="A",
        exchange="binance",
        endpoint="",
        states={"BTC-USDT": "live"},
        host="",
        pid=1,
        started_us=0,
        time_us=0,
    )

    stream.receive(
        20.0,
        [b"subscribe", FEEDERS, 1],
        [b"message", FEEDERS, b"foreign"],
        [b"message", FEEDERS, encode_heartbeat(beat)],
    )

    assert stream.table.feeders.alive("A", "binance", "BTC-USDT", 21.0) is True
    assert stream.table.feeders.alive("A", "binance", "BTC-USDT", 24.0) is False


def beat_of(feeder: str, exchange: str = "binance", **trading: str) -> list[bytes]:
    """The message of a heartbeat of a feeder that serves BTC-USDT; `trading` by the base of a symbol."""
    said = {f"{base}-USDT": status for base, status in trading.items()}
    beat = FeederHeartbeat(
        feeder=feeder,
        exchange=exchange,
        endpoint="",
        states={"BTC-USDT": "live"},
        host="",
        pid=1,
        started_us=0,
        time_us=0,
        trading=said,
    )
    return [b"message", FEEDERS, encode_heartbeat(beat)]


def test_a_change_of_the_trading_status_is_reported_once() -> None:
    stream = Stream()

    stream.receive(20.0, beat_of("A", BTC="trading"), beat_of("A", BTC="trading"))
    stream.receive(21.0, beat_of("A", BTC="halted"), beat_of("upbit", "upbit", BTC="trading"))
    stream.receive(22.0, beat_of("A", BTC="halted"))

    assert stream.changes == [("BTC-USDT", 0), ("BTC-USDT", 0)]
    assert stream.table.trading(stream.book) == "halted"


@pytest.mark.parametrize(
    ("beats", "status"),
    [
        ([], "caution"),  # as the hash says
        ([beat_of("A")], "caution"),
        ([beat_of("A", BTC="trading")], "trading"),
        ([beat_of("A", BTC="trading"), beat_of("B", BTC="halted")], "halted"),
        ([beat_of("A", BTC="halted"), beat_of("B", BTC="trading")], "halted"),
        ([beat_of("A", BTC="halted"), beat_of("A", BTC="trading"), beat_of("B", BTC="trading")], "trading"),
        ([beat_of("A", BTC="trading"), beat_of("B", BTC="unknown")], "trading"),
        ([beat_of("A", BTC="trading"), beat_of("A", BTC="unknown")], "unknown"),
        ([beat_of("A", BTC="halted"), beat_of("A", BTC="unknown")], "unknown"),
        # A feeder that no longer says it does not know it; a halt holds until one says something else.
        ([beat_of("A", BTC="trading"), beat_of("A")], "unknown"),
        ([beat_of("A", BTC="halted"), beat_of("A")], "halted"),
        ([beat_of("A", BTC="halted"), beat_of("A"), beat_of("B", BTC="trading")], "trading"),
        ([beat_of("A", BTC="of a later version")], "unknown"),
        ([beat_of("A", "upbit", BTC="halted")], "caution"),
    ],
)
def test_the_trading_status_is_the_gravest_that_a_living_feeder_says(beats: list[list[bytes]], status: str) -> None:
    stream = Stream()
    stream.book.trading = "caution"

    stream.receive(20.0, *beats)

    assert stream.table.trading(stream.book) == status


def test_the_word_of_a_dead_feeder_holds_until_another_says_one() -> None:
    stream = Stream()
    stream.receive(20.0, beat_of("A", BTC="halted"))

    stream.receive(30.0, beat_of("B"))
    assert stream.table.trading(stream.book) == "halted"
    stream.receive(31.0, beat_of("B", BTC="trading"))
    assert stream.table.trading(stream.book) == "trading"


@pytest.mark.parametrize(
    ("stored", "status"),
    [(None, "unknown"), (b"", "unknown"), (b"halted", "halted"), (b"warning", "warning"), (b"\xff", "unknown")],
)
def test_the_hash_says_the_trading_status(stored: bytes | None, status: str) -> None:
    followed = BusTable("binance", NAMES)
    btc = followed.book("BTC-USDT")
    followed.clock.measure(10.0, 10.0, 1_000_000)

    entry_of(btc, [encode(book(seq=1)), b"1", b"1", stored], followed.clock, None, 10.0, 10.0)

    assert followed.trading(btc) == status


def test_messages_of_channels_nobody_asked_for_are_left_alone() -> None:
    stream = Stream()

    stream.receive(11.0, [b"message", b"md:book:binance:XYZ", b"x"], [b"unsubscribe", b"x", 0])

    assert stream.changes == []


@pytest.mark.parametrize("reply", [hiredis.ReplyError("NOPERM no channel"), [b"pong", b"7"]])
def test_a_refusal_and_a_pong_nobody_asked_for_end_the_session(reply: Any) -> None:
    stream = Stream()

    with pytest.raises(SessionLostError):
        stream.receive(11.0, reply)


def test_messages_before_the_end_of_a_session_are_not_lost() -> None:
    stream = Stream()

    with pytest.raises(SessionLostError):
        stream.stream.receive(replies(message(1), hiredis.ReplyError("ERR")), 11.0)
    stream.stream.apply(11.0)

    assert stream.changes == [("BTC-USDT", 1)]
    assert stream.book.arrived == 0


def session(wanted: list[str] | None = None) -> BusSession:
    return BusSession(BusTable("binance", NAMES), SymbolNames("binance"), wanted, lambda *_: None, 10.0)


def test_an_answer_that_does_not_come_within_five_seconds_ends_the_session() -> None:
    waiting = session()

    waiting.tick(15.0)
    with pytest.raises(SessionLostError, match="no answer for 5 s"):
        waiting.tick(15.1)


def test_a_confirmation_that_comes_while_the_hash_is_read_asks_for_nothing_more() -> None:
    following = session(["BTC"])
    following.receive(replies([b"1", b"0"], PRIMARY, []), 10.0)
    following.stream.receive(replies([b"subscribe", FEEDERS, 1], [b"subscribe", BTC, 2]), 10.0)
    following.receive(replies([encode(book(seq=1)), b"1", b"1", None]), 10.0)
    following.stream.outgoing(10.0)
    following.stream.receive(replies([b"pong", b"1"], [b"pong", b"2"]), 10.0)
    for now in (13.0, 14.0):
        following.tick(now)
    following.outgoing()

    following.receive(replies([b"4", b"0"], PRIMARY, [b"2", b"1"], [b"4", b"0"], PRIMARY, [b"2", b"1"]), 14.0)

    assert following.outgoing() == [("HMGET", BTC, "book", "confirmed_us", "published_us", "trading")]


def test_an_answer_nobody_asked_for_ends_the_session() -> None:
    answered = session()

    with pytest.raises(SessionLostError, match="a reply to no question"):
        answered.receive(replies([b"1", b"0"], PRIMARY, [], b"surprise"), 10.0)


@pytest.mark.parametrize("error", ["NOPERM cannot", "WRONGTYPE Operation"])
def test_every_book_cannot_be_followed_without_the_list(error: str) -> None:
    with pytest.raises(SessionLostError, match=error):
        session().receive(replies([b"1", b"0"], PRIMARY, hiredis.ReplyError(error)), 10.0)


def test_named_books_are_followed_without_the_list() -> None:
    named = session(["BTC"])

    named.receive(replies([b"1", b"0"], PRIMARY, hiredis.ReplyError("WRONGTYPE Operation")), 10.0)

    assert ("SUBSCRIBE", BTC) in named.stream.outgoing(10.0)
    assert not named.ready


def test_of_the_listed_names_only_those_of_the_exchange_are_books() -> None:
    following = session()

    following.receive(
        replies(
            [b"1", b"0"],
            PRIMARY,
            [BTC, b"md:book:upbit:BTC-KRW", b"\xff\xfe", b"md:book:binance:", b"other:book:binance:X"],
        ),
        10.0,
    )

    assert [command for command in following.stream.outgoing(10.0) if BTC in command] == [("SUBSCRIBE", BTC)]


def test_an_empty_bus_is_ready_at_once() -> None:
    following = session()

    following.receive(replies([b"1", b"0"], PRIMARY, []), 10.0)

    assert following.ready


def test_a_reader_that_may_not_write_says_no_more_that_it_lives(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bookbus.consumers.bus.session")
    silent = session()
    silent.receive(replies([b"1", b"0"], PRIMARY, []), 10.0)
    silent.outgoing()

    silent.write_heartbeat("md:consumer:x", [("a", "b")], 5, 11.0)
    assert silent.outgoing() == [("HSET", "md:consumer:x", "a", "b"), ("EXPIRE", "md:consumer:x", 5)]
    silent.receive(replies(hiredis.ReplyError("NOPERM"), hiredis.ReplyError("NOPERM")), 11.0)

    silent.write_heartbeat("md:consumer:x", [("a", "b")], 5, 12.0)
    assert silent.outgoing() == []
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_reader_that_could_not_write_once_tries_again() -> None:
    heard = session()
    heard.receive(replies([b"1", b"0"], PRIMARY, []), 10.0)
    heard.write_heartbeat("md:consumer:x", [("a", "b")], 5, 11.0)
    heard.outgoing()

    heard.receive(replies(hiredis.ReplyError("OOM command not allowed"), 0), 11.0)
    heard.write_heartbeat("md:consumer:x", [("a", "b")], 5, 12.0)

    assert heard.outgoing() == [("HSET", "md:consumer:x", "a", "b"), ("EXPIRE", "md:consumer:x", 5)]


def test_a_reader_tells_its_figures_as_text() -> None:
    stream = Stream()
    stream.receive(11.0, message(1), message(4))
    identity = ConsumerIdentity("host name", 7, "abc")

    assert identity.id == "host_name-7-abc"
    assert consumer_fields(identity, stream.table, 0.0123, 0.25, 2) == {
        "exchange": "binance",
        "symbols": "BTC-USDT",
        "lag_ms": "12.3",
        "delay_ms": "250.0",
        "received": "2",
        "conflated": "1",
        "missed": "0",
        "reconnects": "2",
        "host": "host name",
        "pid": "7",
        "client": "bookbus:host_name-7-abc",
        "version": __version__,
    }


def test_the_delay_is_that_of_the_last_message_by_the_clock_of_the_server() -> None:
    stream = Stream()
    stream.table.clock.measure(10.0, 10.0, 1_700_000_000_000_000)
    assert stream.stream.delay() is None

    stream.receive(10.5, message(1), message(2))

    assert stream.stream.delay() == pytest.approx(0.489)  # Published 11 ms after the server's time was asked.
    stream.receive(10.6, [b"message", BTC, HEAD + (3).to_bytes(8, "big") + b"x"])
    assert stream.stream.delay() is None
