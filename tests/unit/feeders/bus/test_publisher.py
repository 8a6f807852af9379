"""The publisher: what is submitted arrives once, newest first of all, whatever the server does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from bookbus.feeders.bus import publisher as publisher_module
from bookbus.feeders.bus.outbox import TRADES_CAPACITY
from bookbus.feeders.bus.publish_script import CLAIMED, BookClaim, Submission
from bookbus.feeders.bus.publisher import MAX_IN_FLIGHT, Publisher
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort, RedisAddress, parse_redis_url
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade, seq_of
from bookbus.schemas.wire import decode
from tests.support.builders import book
from tests.support.resp_server import Command, RespServer, in_background, resp_server
from tests.support.waiting import await_for

NAMES = RedisNames()
BTC = NAMES.book("binance", "BTC-USDT")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RespServer]:
    async with resp_server(tmp_path) as started:
        yield started


def publisher_for(server: RespServer, **options: Any) -> Publisher:
    return Publisher(server.url, NAMES, "A", **{"reply_timeout": 5.0, "retry_interval": 0.01, **options})


@asynccontextmanager
async def running(server: RespServer, **options: Any) -> AsyncIterator[Publisher]:
    """A publisher that is connected and has loaded its script."""
    publisher = publisher_for(server, **options)
    async with in_background(publisher.run()):
        await await_for(lambda: server.calls(b"SCRIPT"))
        assert await publisher.drain(5)
        yield publisher


def new(update_id: int, symbol: str = "BTC-USDT", **fields: Any) -> Submission:
    return Submission("new", "book", book(symbol, update_id=update_id, **fields))


def again(update_id: int, **fields: Any) -> Submission:
    return Submission("again", "book", book(update_id=update_id, **fields))


def trade(trade_id: int, symbol: str = "BTC-USDT") -> Trade:
    return Trade("binance", symbol, symbol.replace("-", ""), trade_id, 100.5, 0.25, "buy", 1_000, 2_000)


def stored(server: RespServer, name: str = BTC) -> OrderBookSnapshot:
    data: Any = server.redis.hget(name, "book")
    return decode(data)


def sent(server: RespServer, name: str = BTC) -> list[tuple[str, int]]:
    """Kind and update id of each submission of one book that came, in order."""
    return [(call[4].decode(), int(call[6])) for call in server.calls(b"EVALSHA") if call[3] == name.encode()]


def trade_calls(server: RespServer) -> list[Command]:
    """The calls of the script for trades that came."""
    return [call for call in server.calls(b"EVALSHA") if call[2] == b"2"]


def stored_trades(server: RespServer, symbol: str = "BTC-USDT") -> list[int]:
    """The ids of the trades in a stream."""
    entries: Any = server.redis.xrange(NAMES.trades("binance", symbol))
    return [int(fields[b"id"]) for _, fields in entries]


async def accepted(publisher: Publisher, count: int) -> None:
    await await_for(lambda: publisher.counters.accepted == count, what=f"{count} accepted books")


def failing(server: RespServer, name: bytes, error: str) -> Callable[[Command], Any]:
    """Answers `error` to the submissions of one book, and as usual to everything else."""

    def answer(command: Command) -> Any:
        if command[0] == b"EVALSHA" and name in command[3]:
            return redis.ResponseError(error)
        return server.answer_by_fakeredis(command)

    return answer


async def test_a_submitted_book_is_stored_as_this_feeders(server: RespServer) -> None:
    async with running(server, clock_us=lambda: 1_700_000_000_123_456) as publisher:
        publisher.submit(new(7))

        assert await publisher.drain(5)

    seq = stored(server).seq
    assert stored(server) == book(update_id=7, seq=seq, feeder="A", published_us=1_700_000_000_123_456)
    assert publisher.counters.accepted == 1


async def test_a_quote_has_a_name_of_its_own(server: RespServer) -> None:
    async with running(server) as publisher:
        publisher.submit(Submission("new", "quote", book(update_id=7, depth=1)))
        publisher.submit(new(3))

        assert await publisher.drain(5)

    assert stored(server, NAMES.quote("binance", "BTC-USDT")).update_id == 7
    assert stored(server).update_id == 3


async def test_what_one_turn_of_the_loop_submits_goes_in_one_write(server: RespServer) -> None:
    async with running(server) as publisher:
        before = publisher.counters.batches

        for number in range(50):
            publisher.submit(new(1, f"S{number}-USDT"))
        assert await publisher.drain(5)

    assert publisher.counters.batches == before + 1
    assert publisher.counters.accepted == 50


async def test_only_the_newest_of_a_turn_is_sent(server: RespServer) -> None:
    async with running(server) as publisher:
        for update_id in range(1, 11):
            publisher.submit(new(update_id))

        assert await publisher.drain(5)

    assert sent(server) == [("new", 10)]
    assert publisher.counters.conflated == 9


async def test_replies_are_counted_by_what_they_mean(server: RespServer) -> None:
    async with running(server) as publisher:
        for submission in (new(5), again(5), new(4)):
            publisher.submit(submission)
            assert await publisher.drain(5)

    counters = publisher.counters
    assert (counters.accepted, counters.confirmed, counters.duplicates) == (1, 1, 1)


async def test_refused_books_are_noted_until_one_is_accepted(server: RespServer) -> None:
    deep, shallow = BookClaim("live", "diff", 20), BookClaim("live", "diff", 5)
    async with running(server, claim=deep) as owner:
        owner.submit(new(5))
        assert await owner.drain(5)
        publisher = Publisher(server.url, NAMES, "B", claim=shallow)
        running_too = asyncio.create_task(publisher.run())
        publisher.submit(new(6))
        assert await publisher.drain(5)
        noted = [(key.symbol, reply) for key, reply in publisher.unaccepted.items()]
        owner.submit(Submission("state", "book", book(update_id=5, state="closed")))
        assert await owner.drain(5)
        publisher.submit(new(7))
        assert await publisher.drain(5)
        running_too.cancel()
        await asyncio.gather(running_too, return_exceptions=True)

    assert noted == [("BTC-USDT", CLAIMED)]
    assert publisher.unaccepted == {}
    counters = publisher.counters
    assert (counters.accepted, counters.refused, counters.duplicates, owner.unaccepted) == (1, 1, 0, {})


async def test_ids_that_fell_rise_again_once_the_server_has_one_of_them(server: RespServer) -> None:
    async with running(server) as publisher:
        lost = Submission("state", "book", book(update_id=1000, state="suspect"))
        for submission in (new(1000), lost, new(950), new(951)):
            publisher.submit(submission)
            assert await publisher.drain(5)
        (key,) = publisher._outbox._keys.values()

    assert publisher.counters.accepted == 4
    assert (key.highest, publisher._outbox._fallen) == (951, set())


async def test_while_the_server_hangs_memory_is_bounded_and_the_newest_is_kept(server: RespServer) -> None:
    async with running(server) as publisher:
        server.answering.clear()
        for update_id in range(1, 101):
            publisher.submit(new(update_id))
            await asyncio.sleep(0)
        assert not await publisher.drain(0.01)

        server.answering.set()
        assert await publisher.drain(5)

    assert sent(server)[-1] == ("new", 100)
    assert len(sent(server)) == MAX_IN_FLIGHT + 1
    assert publisher.counters.conflated == 100 - (MAX_IN_FLIGHT + 1)


async def test_a_server_that_never_answers_is_left_and_tried_again(
    server: RespServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(server, reply_timeout=0.05) as publisher:
        server.answering.clear()
        publisher.submit(new(7))
        await await_for(lambda: server.connections > 1)

        server.answering.set()

        assert await publisher.drain(5)
    assert stored(server).update_id == 7
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"{server.url}: did not answer within 0.05 s; retrying until Redis takes books",
        f"{server.url} answers again",
    ]


async def test_a_server_that_comes_later_is_reported_once_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RespServer(tmp_path / "redis.sock")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            await server.start()

    connected: list[bool] = []
    publisher = publisher_for(server, sleep=sleep, on_connected=lambda: connected.append(True))
    async with in_background(publisher.run()):
        publisher.submit(new(7))

        assert await publisher.drain(5)

    await server.stop()
    assert stored(server).update_id == 7
    assert connected == [True]
    assert all(0.05 <= pause <= 2.0 for pause in pauses)
    assert pauses[0] <= 0.1
    assert len(caplog.records) == 2


async def test_after_a_lost_connection_the_feeder_is_asked_for_every_book(server: RespServer) -> None:
    asked: list[int] = []

    def submit_all() -> None:
        asked.append(len(asked))
        publisher.submit(new(len(asked)))

    publisher = publisher_for(server, on_connected=submit_all)
    async with in_background(publisher.run()):
        await accepted(publisher, 1)
        server.redis.flushall()

        server.drop()

        await accepted(publisher, 2)
    assert asked == [0, 1]
    assert stored(server).update_id == 2


async def test_what_a_lost_connection_left_unanswered_is_sent_again(server: RespServer) -> None:
    async with running(server) as publisher:
        server.answering.clear()
        publisher.submit(new(1, "ETH-USDT"))
        publisher.submit_trade(trade(1))
        publisher.submit_trade(trade(2))
        await await_for(lambda: trade_calls(server))
        server.redis.flushall()

        server.drop()
        server.answering.set()

        assert await publisher.drain(5)
    assert stored(server, NAMES.book("binance", "ETH-USDT")).update_id == 1
    assert stored_trades(server) == [1, 2]


async def test_a_confirmation_is_not_sent_over_the_next_connection(server: RespServer) -> None:
    async with running(server) as publisher:
        publisher.submit(new(1))
        assert await publisher.drain(5)
        server.answering.clear()
        publisher.submit(again(1))
        await await_for(lambda: len(sent(server)) == 2)

        server.drop()
        server.answering.set()

        await await_for(lambda: server.connections == 2)
        assert await publisher.drain(5)
    assert sent(server) == [("new", 1), ("again", 1)]


async def test_a_server_without_the_script_gets_it(server: RespServer) -> None:
    async with running(server) as publisher:
        server.redis.script_flush()

        publisher.submit(new(7))
        publisher.submit(new(7, "ETH-USDT"))

        assert await publisher.drain(5)
    assert len(server.calls(b"SCRIPT")) == 4  # the scripts for books and for trades, twice
    assert publisher.counters.accepted == 2
    assert publisher.counters.errors == 0


async def test_a_server_that_will_not_load_the_script_is_not_hammered(server: RespServer) -> None:
    def answer(command: Command) -> Any:
        if command[0] == b"SCRIPT":
            return redis.ResponseError("NOPERM this user has no permissions to run the 'script|load' command")
        return server.answer_by_fakeredis(command)

    server.answer = answer
    async with running(server, retry_interval=60) as publisher:
        publisher.submit(new(7))
        await await_for(lambda: publisher.error_kinds["NOSCRIPT"])

        assert not await publisher.drain(0.05)

    assert len(sent(server)) <= 2
    assert publisher.error_kinds["NOPERM"] == len(server.calls(b"SCRIPT")) <= 6


@pytest.mark.parametrize("kind", ["OOM", "MISCONF", "NOPERM", "BUSY"])
async def test_a_book_that_the_server_refuses_is_tried_until_it_takes_it(
    server: RespServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async with running(server) as publisher:
        server.answer = failing(server, b"", f"{kind} not now")
        publisher.submit(new(7))
        await await_for(lambda: publisher.error_kinds[kind] >= 3)

        server.answer = server.answer_by_fakeredis

        assert await publisher.drain(5)
    assert stored(server).update_id == 7
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.url} refuses {BTC}: {kind} not now",
        f"{server.url} takes everything again (was: {kind})",
    ]
    assert server.connections == 1


async def test_a_refused_book_waits_before_it_is_tried_again(server: RespServer) -> None:
    async with running(server, retry_interval=60) as publisher:
        server.answer = failing(server, b"", "OOM not now")
        publisher.submit(new(7))

        assert not await publisher.drain(0.05)

    assert sent(server) == [("new", 7)]


async def test_one_refused_book_does_not_hold_up_the_others(
    server: RespServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.redis.set(BTC, "somebody else's")
    async with running(server, retry_interval=60) as publisher:
        for update_id in range(1, 4):
            publisher.submit(new(update_id))
            publisher.submit(new(update_id, "ETH-USDT"))
            await accepted(publisher, update_id)

    assert stored(server, NAMES.book("binance", "ETH-USDT")).update_id == 3
    assert server.redis.get(BTC) == b"somebody else's"
    assert publisher.error_kinds == {"WRONGTYPE": 3}
    assert len(caplog.records) == 1


async def test_a_refused_book_never_follows_a_newer_one(server: RespServer) -> None:
    async with running(server, retry_interval=0.05) as publisher:
        server.answer = failing(server, b"", "OOM not now")
        publisher.submit(new(7, bids=((1.0, 1.0),)))
        await await_for(lambda: publisher.counters.errors)
        server.answer = server.answer_by_fakeredis

        publisher.submit(new(7, bids=((2.0, 2.0),)))

        assert await publisher.drain(5)
        assert await publisher.drain(0.1)
    assert stored(server).bids == ((2.0, 2.0),)
    assert len(sent(server)) == 2


async def test_levels_that_were_refused_are_not_just_confirmed_later(server: RespServer) -> None:
    async with running(server, retry_interval=60) as publisher:
        publisher.submit(new(7, bids=((1.0, 1.0),)))
        assert await publisher.drain(5)
        server.answer = failing(server, b"", "OOM not now")
        publisher.submit(new(7, bids=((2.0, 2.0),)))
        await await_for(lambda: publisher.counters.errors)
        server.answer = server.answer_by_fakeredis

        publisher.submit(again(7, bids=((2.0, 2.0),)))

        assert await publisher.drain(5)
    assert stored(server).bids == ((2.0, 2.0),)


@pytest.mark.parametrize(
    ("kind", "reported"),
    [
        ("READONLY", "is a read-only replica, and feeders write to its primary: name that with --redis"),
        ("LOADING", "LOADING wrong role"),
        ("MASTERDOWN", "MASTERDOWN wrong role"),
        ("NOREPLICAS", "NOREPLICAS wrong role"),
    ],
)
async def test_a_server_in_the_wrong_role_is_left_and_everything_sent_to_the_next(
    server: RespServer, caplog: pytest.LogCaptureFixture, kind: str, reported: str
) -> None:
    connected: list[bool] = []
    async with running(server, on_connected=lambda: connected.append(True)) as publisher:
        server.answer = failing(server, b"", f"{kind} wrong role")
        publisher.submit(new(7))
        publisher.submit_trade(trade(1))
        await await_for(lambda: server.connections >= 3)

        server.answer = server.answer_by_fakeredis

        assert await publisher.drain(5)
    assert stored(server).update_id == 7
    assert len(connected) == server.connections
    assert publisher.error_kinds[kind] == server.connections - 1
    assert server.redis.xlen(NAMES.trades("binance", "BTC-USDT")) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.url}: {reported}; retrying until Redis takes books",
        f"{server.url} answers again",
    ]


async def test_what_is_discarded_is_never_sent(server: RespServer) -> None:
    async with running(server, retry_interval=0.01) as publisher:
        server.answer = failing(server, b"ETH", "OOM not now")
        publisher.submit(new(1, "ETH-USDT"))
        await await_for(lambda: publisher.counters.errors)
        tries = publisher.counters.errors
        publisher.submit(new(1))

        publisher.discard()

        await await_for(lambda: all(writer._retry is None for writer in publisher._writers.values()))
        assert await publisher.drain(5)
    assert sent(server) == []
    assert publisher.counters.errors == tries


async def test_what_is_in_the_socket_when_books_become_old_is_not_sent(server: RespServer) -> None:
    async with running(server) as publisher:
        server.answering.clear()
        levels = tuple((float(price), 1.0) for price in range(100_000, 0, -1))
        for turn in range(MAX_IN_FLIGHT):
            publisher.submit(new(turn + 1, bids=levels))
            await asyncio.sleep(0)

        publisher.discard()
        server.answering.set()

        await await_for(lambda: server.connections == 2)
        assert await publisher.drain(5)
    assert publisher.counters.accepted == 0


async def test_what_would_be_old_can_be_discarded_just_before_it_is_written(server: RespServer) -> None:
    stalled = False

    def before_write() -> None:
        if stalled:
            publisher.discard()

    publisher = publisher_for(server, before_write=before_write)
    async with in_background(publisher.run()):
        publisher.submit(new(1))
        await accepted(publisher, 1)

        stalled = True
        publisher.submit(new(2))

        assert await publisher.drain(5)
    assert sent(server) == [("new", 1)]


async def test_lossless_submissions_all_arrive_in_order(server: RespServer) -> None:
    async with running(server) as publisher:
        for update_id in range(1, 301):
            await publisher.submit_lossless(new(update_id))
            await publisher.submit_lossless(new(update_id, "ETH-USDT"))

        assert await publisher.drain(5)
    assert sent(server) == [("new", update_id) for update_id in range(1, 301)]
    assert publisher.counters.conflated == 0
    assert publisher.counters.accepted == 600


async def test_trades_are_never_merged_and_a_twins_are_no_errors(
    server: RespServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(server) as twin:
        for trade_id in (2, 1):
            twin.submit_trade(msgspec.structs.replace(trade(trade_id), received_us=1_999))
        assert await twin.drain(5)
    async with running(server) as publisher:
        for trade_id in range(1, 6):
            publisher.submit_trade(trade(trade_id))

        assert await publisher.drain(5)

    entries: Any = server.redis.xrange(NAMES.trades("binance", "BTC-USDT"))
    assert stored_trades(server) == [2, 1, 3, 4, 5]
    fields = {key.decode(): value.decode() for key, value in entries[-1][1].items()}
    seq = seq_of(fields)
    assert seq is not None
    assert fields == trade(5).fields() | {"seq": f"{seq.epoch}-5"}
    assert (publisher.counters.trades, publisher.counters.trade_duplicates) == (3, 2)
    assert publisher.counters.errors == 0
    assert caplog.records == []


@pytest.mark.parametrize(
    "ids",
    [
        [0, 2, 1, 3, 5, 4],
        [9, 8, 7, 6, 5],
        [2**63 - 1, 1, 2**53 + 1, 2**53],
        [7, 500, 8, 400, 9],
        list(range(1000, 0, -7)),
    ],
    ids=["swapped", "falling", "huge", "jumping", "many"],
)
async def test_no_trade_is_lost_or_doubled_whatever_its_id_is(server: RespServer, ids: list[int]) -> None:
    async with running(server) as first, running(server) as second:
        for trade_id, twins_id in zip(ids, reversed(ids), strict=True):
            first.submit_trade(trade(trade_id))
            second.submit_trade(msgspec.structs.replace(trade(twins_id), received_us=3_000))
            await asyncio.sleep(0)
        assert await first.drain(5)
        assert await second.drain(5)

    assert sorted(stored_trades(server)) == sorted(ids)
    counters = (first.counters, second.counters)
    assert sum(each.trades for each in counters) == sum(each.trade_duplicates for each in counters) == len(ids)


async def test_an_id_that_comes_again_with_another_trade_is_another_trade(server: RespServer) -> None:
    again = [
        msgspec.structs.replace(trade(7), **change)
        for change in ({}, {"price": 101.0}, {"quantity": 0.5}, {"aggressor": "sell"}, {"exchange_us": 1_001})
    ]
    async with running(server) as publisher:
        for one in [*again, *again]:
            publisher.submit_trade(one)
        assert await publisher.drain(5)

    assert stored_trades(server) == [7] * 5
    assert publisher.counters.trade_duplicates == 5


async def test_trades_go_on_over_the_stream_of_an_earlier_version(server: RespServer) -> None:
    fields: Any = trade(2**62).fields()
    server.redis.xadd(NAMES.trades("binance", "BTC-USDT"), fields, id=f"{2**62}-0")
    async with running(server) as publisher:
        publisher.submit_trade(trade(5))
        publisher.submit_trade(trade(4))
        assert await publisher.drain(5)

    assert stored_trades(server) == [2**62, 5, 4]


async def test_trades_of_a_server_that_forgot_the_scripts_are_sent_again_in_order(server: RespServer) -> None:
    async with running(server) as publisher:
        publisher.submit_trade(trade(1))
        assert await publisher.drain(5)
        server.redis.script_flush()
        for number in range(2, 7):
            publisher.submit_trade(msgspec.structs.replace(trade(number), received_us=2_000 + number))
            await asyncio.sleep(0)

        assert await publisher.drain(5)

    assert stored_trades(server) == [1, 2, 3, 4, 5, 6]
    assert publisher.counters.errors == 0
    assert publisher.counters.trades_dropped == 0


async def test_trades_that_the_server_refuses_are_dropped_and_counted(server: RespServer) -> None:
    server.redis.set(NAMES.trades("binance", "BTC-USDT"), "somebody else's")
    async with running(server) as publisher:
        publisher.submit_trade(trade(1))
        publisher.submit_trade(trade(1, "ETH-USDT"))

        assert await publisher.drain(5)

    assert publisher.error_kinds == {"WRONGTYPE": 1}
    assert (publisher.counters.trades, publisher.counters.trades_dropped) == (1, 1)


async def test_lossless_trades_wait_for_room(server: RespServer) -> None:
    async with running(server) as publisher:
        for trade_id in range(1, TRADES_CAPACITY + 1):
            publisher.submit_trade(trade(trade_id))

        await publisher.submit_trade_lossless(trade(TRADES_CAPACITY + 1))

        assert publisher.counters.trades_dropped == 0
        server.answer = lambda _: 1
        assert await publisher.drain(10)
    assert publisher.counters.trades == TRADES_CAPACITY + 1


async def test_trades_wait_for_a_server_up_to_a_limit(tmp_path: Path) -> None:
    publisher = Publisher(f"unix://{tmp_path}/none.sock", NAMES, "A")

    for trade_id in range(TRADES_CAPACITY + 7):
        publisher.submit_trade(trade(trade_id))

    assert publisher.counters.trades_dropped == 7


async def test_no_log_line_holds_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with resp_server(tmp_path, lambda _: redis.ResponseError("WRONGPASS invalid pair")) as server:
        publisher = Publisher(f"unix://ada:s3cret@{server.path}", NAMES, "A")
        async with in_background(publisher.run()):
            await await_for(lambda: server.connections >= 2)

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"unix://ada:***@{server.path}: refused AUTH (WRONGPASS invalid pair)")
    assert "s3cret" not in caplog.text


async def test_a_cancelled_publisher_leaves_with_everything_written_sent(server: RespServer) -> None:
    async with running(server) as publisher:
        publisher.submit(new(7))
        await asyncio.sleep(0)

    await await_for(lambda: sent(server) == [("new", 7)])


def moved(server: RespServer, *symbols: str) -> None:
    """From now on, these books are another node's."""

    def answer(command: Command) -> Any:
        if command[0] == b"EVALSHA" and any(symbol.encode() in command[3] for symbol in symbols):
            return redis.ResponseError("MOVED 42 there:7000")
        return server.answer_by_fakeredis(command)

    server.answer = answer


HERE, THERE = ("here", 7000), ("there", 7000)


class TwoNodes:
    """Routes every name to `here`, those in `moved` to `there`."""

    sharded = True
    servers = frozenset({HERE, THERE})

    def __init__(self, here: RespServer, there: RespServer) -> None:
        self.here, self.there = here, there
        self.moved: set[str] = set()
        self.replies: list[str] = []

    def address(self, server: HostPort) -> RedisAddress:
        return parse_redis_url((self.here if server == HERE else self.there).url)

    def server_of(self, name: str) -> HostPort:
        return THERE if name in self.moved else HERE

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        self.replies += [reply for server, reply in moves if server == HERE]

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        self.move = on_change
        await asyncio.Event().wait()


@pytest.fixture
async def nodes(server: RespServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoNodes]:
    """Every publisher made from now on writes to these."""
    (tmp_path / "there").mkdir()
    async with resp_server(tmp_path / "there") as there:
        nodes = TwoNodes(server, there)
        monkeypatch.setattr(publisher_module, "router_of", lambda _: nodes)
        yield nodes


async def test_a_node_that_has_a_book_no_longer_is_taken_at_its_word(
    nodes: TwoNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(nodes.here, retry_interval=3600) as publisher:
        moved(nodes.here, "BTC", "ETH")
        for symbol in ("BTC-USDT", "ETH-USDT", "SOL-USDT"):
            publisher.submit(new(7, symbol))
        await await_for(lambda: len(nodes.replies) == 2)

        nodes.moved = {NAMES.book("binance", symbol) for symbol in ("BTC-USDT", "ETH-USDT", "SOL-USDT")}
        nodes.move()

        assert await publisher.drain(5)
    assert sent(nodes.there) == [("new", 7)]
    assert sent(nodes.there, NAMES.book("binance", "ETH-USDT")) == [("new", 7)]
    assert sent(nodes.there, NAMES.book("binance", "SOL-USDT")) == []
    assert nodes.replies == ["MOVED 42 there:7000"] * 2
    assert publisher.counters.errors == 0
    assert caplog.records == []


async def test_a_confirmation_of_levels_that_never_arrived_moves_on_with_them(nodes: TwoNodes) -> None:
    async with running(nodes.here, retry_interval=3600) as publisher:
        moved(nodes.here, "BTC")
        publisher.submit(new(7))
        await await_for(lambda: nodes.replies)
        publisher.submit(again(8))
        await await_for(lambda: len(nodes.replies) == 2)

        nodes.moved = {BTC}
        nodes.move()

        assert await publisher.drain(5)
    assert sent(nodes.there) == [("new", 8)]


async def test_a_confirmation_alone_does_not_move_on(nodes: TwoNodes) -> None:
    async with running(nodes.here, retry_interval=3600) as publisher:
        publisher.submit(new(7))
        assert await publisher.drain(5)
        moved(nodes.here, "BTC")
        publisher.submit(again(7))
        await await_for(lambda: nodes.replies)

        nodes.moved = {BTC}
        nodes.move()

        assert await publisher.drain(5)
    assert sent(nodes.there) == []


async def fill(publisher: Publisher, symbol: str) -> None:
    """Let as many writes as the server may leave unanswered be in flight."""
    for update_id in range(MAX_IN_FLIGHT):
        publisher.submit(new(update_id, symbol))
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("unanswered", "sent_there"), [(False, []), (True, [("new", 8)])])
async def test_an_unsent_confirmation_moves_on_only_with_levels_that_may_be_missing(
    nodes: TwoNodes, unanswered: bool, sent_there: list[tuple[str, int]]
) -> None:
    async with running(nodes.here) as publisher:
        publisher.submit(new(7))
        assert await publisher.drain(5)
        nodes.here.answering.clear()
        if unanswered:
            publisher.submit(new(8))
        await fill(publisher, "ETH-USDT")
        publisher.submit(again(8 if unanswered else 7))

        nodes.moved = {BTC}
        nodes.move()
        await asyncio.sleep(0.05)
        nodes.here.answering.set()

        assert await publisher.drain(5)
    assert sent(nodes.there) == sent_there
    assert ("again", 7) not in sent(nodes.here)


async def test_another_node_that_connects_leaves_confirmations_alone(nodes: TwoNodes) -> None:
    async with running(nodes.here) as publisher:
        publisher.submit(new(7))
        assert await publisher.drain(5)
        nodes.here.answering.clear()
        await fill(publisher, "ETH-USDT")
        publisher.submit(again(7))
        connections = nodes.there.connections

        nodes.there.drop()
        await await_for(lambda: nodes.there.connections > connections)
        await await_for(lambda: publisher.connected)
        nodes.here.answering.set()

        assert await publisher.drain(5)
    assert sent(nodes.here)[-1] == ("again", 7)


async def test_what_moved_is_not_sent_to_the_old_node_any_more(nodes: TwoNodes) -> None:
    async with running(nodes.here) as publisher:
        nodes.here.answering.clear()
        for update_id in range(MAX_IN_FLIGHT + 2):
            publisher.submit(new(update_id))
            publisher.submit_trade(trade(update_id + 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        nodes.moved = {BTC, NAMES.trades("binance", "BTC-USDT")}
        nodes.move()

        await await_for(lambda: sent(nodes.there) == [("new", MAX_IN_FLIGHT + 1)])
        await await_for(lambda: stored_trades(nodes.there) == list(range(1, MAX_IN_FLIGHT + 3)))

        nodes.here.answering.set()
        assert await publisher.drain(5)
    assert stored(nodes.here).update_id == MAX_IN_FLIGHT - 1


async def test_trades_of_a_moved_stream_are_sent_to_its_new_node_in_order(
    nodes: TwoNodes, caplog: pytest.LogCaptureFixture
) -> None:
    stream = NAMES.trades("binance", "BTC-USDT")

    def answer(command: Command) -> Any:
        if command[0] == b"EVALSHA" and command[3] == stream.encode():
            return redis.ResponseError("MOVED 42 there:7000")
        return nodes.here.answer_by_fakeredis(command)

    async with running(nodes.here, retry_interval=3600) as publisher:
        nodes.here.answer = answer
        for trade_id in (1, 2):
            publisher.submit_trade(trade(trade_id))
            publisher.submit_trade(trade(trade_id, "ETH-USDT"))
            await await_for(lambda: len(nodes.replies) == trade_id)  # noqa: B023
        assert not publisher._outbox.idle

        nodes.moved = {stream}
        nodes.move()
        publisher.submit_trade(trade(3))

        assert await publisher.drain(5)
    assert stored_trades(nodes.there) == [1, 2, 3]
    assert (publisher.counters.trades, publisher.counters.trades_dropped) == (5, 0)
    assert publisher.counters.errors == 0
    assert caplog.records == []


async def test_moved_trades_are_tried_again_while_no_other_node_is_known(nodes: TwoNodes) -> None:
    stream = NAMES.trades("binance", "BTC-USDT")
    async with running(nodes.here) as publisher:
        nodes.here.answer = lambda _: redis.ResponseError("MOVED 42 there:7000")
        publisher.submit_trade(trade(1))
        await await_for(lambda: len(nodes.replies) >= 3)

        nodes.here.answer = nodes.here.answer_by_fakeredis

        assert await publisher.drain(5)
    assert nodes.here.redis.xlen(stream) == 1


async def test_a_node_that_hangs_does_not_hold_up_the_others(nodes: TwoNodes) -> None:
    eth = NAMES.book("binance", "ETH-USDT")
    nodes.moved = {eth, NAMES.trades("binance", "ETH-USDT")}
    async with running(nodes.here) as publisher:
        nodes.here.answering.clear()
        for update_id in range(2 * MAX_IN_FLIGHT):
            for symbol in ("BTC-USDT", "ETH-USDT"):
                publisher.submit(new(update_id, symbol))
                publisher.submit_trade(trade(update_id + 1, symbol))
            await await_for(lambda: len(sent(nodes.there, eth)) == update_id + 1)  # noqa: B023

        await await_for(lambda: publisher.counters.trades == 2 * MAX_IN_FLIGHT)
        nodes.here.answering.set()
        assert await publisher.drain(5)
    assert stored(nodes.here).update_id == 2 * MAX_IN_FLIGHT - 1
    assert publisher.counters.trades == 4 * MAX_IN_FLIGHT


@pytest.mark.parametrize("end", ["MOVED 42 there:7000", "OOM full", "drop"])
async def test_what_an_old_node_does_with_a_moved_book_does_not_matter(nodes: TwoNodes, end: str) -> None:
    async with running(nodes.here) as publisher:
        nodes.here.answering.clear()
        nodes.here.answer = lambda _: redis.ResponseError(end)
        publisher.submit(new(7))
        publisher.submit_trade(trade(1))
        await await_for(lambda: trade_calls(nodes.here))

        nodes.moved = {BTC, NAMES.trades("binance", "BTC-USDT")}
        nodes.move()
        await await_for(lambda: publisher.counters.trades)
        if end == "drop":
            nodes.here.answer = nodes.here.answer_by_fakeredis
            nodes.here.drop()
            await await_for(lambda: nodes.here.connections == 2)
        nodes.here.answering.set()

        assert await publisher.drain(5)
        assert publisher.healthy
    assert sent(nodes.there) == [("new", 7)]
    assert len(sent(nodes.here)) == 1
    assert publisher.counters.accepted == 1


async def test_one_node_of_a_cluster_is_reported_as_one(server: RespServer, caplog: pytest.LogCaptureFixture) -> None:
    async with running(server) as publisher:
        moved(server, "BTC")
        publisher.submit(new(7))
        await await_for(lambda: caplog.records)

    assert "it is one node of a cluster: name it like redis+cluster://host:port" in caplog.records[0].getMessage()
