"""RedisMarketDataProvider against a real server and its failures."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus, StoredState
from bookbus.schemas.wire import HEAD, encode
from tests.support.builders import book
from tests.support.provider_sources import silent_server
from tests.support.waiting import await_for, wait_for
from tests.support.writer import BusWriter

HUNDRED = [f"S{number}-USDT" for number in range(100)]
NAMES = RedisNames()
BTC = NAMES.book("binance", "BTC-USDT")
MODES: tuple[Mode, ...] = ("push", "pull")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def own_client(own_redis_server: LocalServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis_server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []


class Busy:
    """A feeder that keeps updating all its symbols until the block ends."""

    def __init__(self, url: str, symbols: list[str]) -> None:
        self._url = url
        self._symbols = symbols
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[Exception] = []

    def __enter__(self) -> "Busy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            writer, update_id = BusWriter(client), 1
            while not self._over.wait(0.005):
                update_id += 1
                try:
                    writer.submit_all(book(symbol, update_id=update_id) for symbol in self._symbols)
                except redis.RedisError as error:
                    self.failures.append(error)


def push(url: str, *symbols: str, max_age: float = 5.0) -> RedisMarketDataProvider:
    return RedisMarketDataProvider(url, "binance", symbols, max_age=max_age)


def update_id(provider: RedisMarketDataProvider, symbol: str = "BTC") -> int:
    snapshot = provider.get_latest_snapshot(symbol)
    return 0 if snapshot is None else snapshot.update_id


def has_seq(provider: RedisMarketDataProvider, seq: int) -> bool:
    return provider.status("BTC").seq == seq


def as_text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def total(provider: RedisMarketDataProvider, count: str) -> int:
    return sum(getattr(status, count) for status in provider.get_connection_status().symbols.values())


@pytest.mark.parametrize("symbols", [HUNDRED, "*"])
def test_start_in_the_middle_of_a_hundred_busy_symbols_returns_with_all_books(
    redis_url: str, client: redis.Redis, symbols: list[str] | str
) -> None:
    BusWriter(client).submit_all(book(symbol, update_id=1) for symbol in HUNDRED)
    with Busy(redis_url, HUNDRED), RedisMarketDataProvider(redis_url, "binance", symbols) as provider:
        books = provider.get_many(HUNDRED)
        provider.wait_until_live(timeout=0)
        wait_for(lambda: all(update_id(provider, symbol) > 5 for symbol in HUNDRED))

        assert None not in books.values()
        assert (total(provider, "missed"), total(provider, "resets"), total(provider, "skipped")) == (0, 0, 0)


def test_symbols_that_come_later_are_followed_too(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.update("BTC-USDT")
    with RedisMarketDataProvider(redis_url, "binance", "*") as provider:
        assert provider.symbols == ["BTC-USDT"]

        writer.update("NEW-USDT", 7)
        writer.update("OLD-KRW", exchange="upbit")

        wait_for(lambda: update_id(provider, "NEW") == 7)
        assert provider.symbols == ["BTC-USDT", "NEW-USDT"]


def test_a_reader_hears_the_books_and_heartbeats_of_its_own_database_alone(
    own_redis_server: LocalServer,
) -> None:
    base = own_redis_server.url.removesuffix("/0")
    with redis.Redis.from_url(f"{base}/0") as zero, redis.Redis.from_url(f"{base}/1") as one:
        writers = BusWriter(zero, "real"), BusWriter(one, "simulated")
        for writer in writers:
            writer.update(update_id=1)
        with push(f"{base}/0", "BTC") as real, push(f"{base}/1", "BTC") as simulated:
            for update_id_ in range(2, 20):
                writers[1].update(update_id=1_000 + update_id_)
                writers[0].update(update_id=update_id_)
                writers[1].heartbeat(["BTC-USDT", "ETH-USDT"])

            wait_for(lambda: (update_id(real), update_id(simulated)) == (19, 1_019))
            feeders = [provider._table.feeders.published("binance") for provider in (real, simulated)]
            read = real.get_latest_snapshot("BTC"), simulated.get_latest_snapshot("BTC")

    assert [snapshot and snapshot.feeder for snapshot in read] == ["real", "simulated"]
    assert feeders == [frozenset(), frozenset({"BTC-USDT", "ETH-USDT"})]


def test_names_listed_on_the_bus_decide_what_a_native_name_means(redis_url: str, client: redis.Redis) -> None:
    BusWriter(client).update("ABCBUSD-T", native="ABCBUSDT")
    with RedisMarketDataProvider(redis_url, "binance", ["ABCBUSDT"]) as provider:
        assert provider.standard_symbol("ABCBUSDT") == "ABCBUSD-T"
        assert update_id(provider, "ABCBUSDT") == 100


def test_missed_updates_are_counted_by_their_seq(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.update(update_id=1)
    with push(redis_url, "BTC") as provider:
        first = provider.status("BTC").seq
        for skipped in (3, 0, 2):
            seq = provider.status("BTC").seq + skipped + 1
            client.publish(BTC, encode(book(seq=seq, update_id=seq % 2**50)))
            wait_for(partial(has_seq, provider, seq))
        status = provider.status("BTC")

    assert (status.missed, status.received, status.resets) == (5, 4, 0)
    assert status.seq == first + 8


def test_a_quiet_book_stays_live_while_its_feeder_confirms_it(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.update()
    began = time.monotonic()
    with writer.confirming():
        provider = push(redis_url, "BTC", max_age=3.5)
        provider.start()
    with provider:

        def confirmed_for_a_while() -> bool:
            assert writer.submit(book(), "again") == 2
            reading = provider.read("BTC")
            assert reading.status is BookStatus.LIVE, reading.reason
            update_age = provider.status("BTC").update_age
            return update_age is not None and update_age > 4

        wait_for(confirmed_for_a_while, timeout=10)
        assert provider.status("BTC").received == 1
    assert time.monotonic() - began > 3.5


@pytest.mark.parametrize("mode", MODES)
def test_a_stale_book_without_a_heartbeat_has_no_feeder(redis_url: str, client: redis.Redis, mode: Mode) -> None:
    writer = BusWriter(client)
    writer.update()
    with RedisMarketDataProvider(redis_url, "binance", ["BTC"], mode, max_age=3.2) as provider:

        def stale() -> bool:
            writer.heartbeat(["BTC-USDT"])
            return provider.read("BTC").status is not BookStatus.LIVE

        wait_for(stale)
        assert provider.read("BTC").status is BookStatus.STALE

        def alive() -> bool:
            writer.heartbeat(["BTC-USDT"])
            return provider.status("BTC").feeder_alive is True

        wait_for(alive)
        wait_for(lambda: provider.read("BTC").status is BookStatus.FEEDER_DOWN)

        writer.update(update_id=101)
        wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE)


def test_a_stale_book_that_another_living_feeder_serves_is_not_orphaned(redis_url: str, client: redis.Redis) -> None:
    BusWriter(client, "dead").update()
    twin = BusWriter(client, "twin")
    with push(redis_url, "BTC", max_age=0.1) as provider:

        def known() -> bool:
            twin.heartbeat(["BTC-USDT"])
            return provider.status("BTC").feeder_alive is True

        wait_for(known)
        wait_for(lambda: provider.read("BTC").status is not BookStatus.LIVE)
        assert provider.read("BTC").status is BookStatus.STALE


@pytest.mark.parametrize("state", ["suspect", "closed"])
@pytest.mark.parametrize("mode", MODES)
def test_what_the_feeder_says_of_its_book_is_the_status(
    redis_url: str, client: redis.Redis, mode: Mode, state: StoredState
) -> None:
    writer = BusWriter(client)
    writer.update()
    with RedisMarketDataProvider(redis_url, "binance", ["BTC"], mode) as provider:
        writer.submit(book(state=state), "state")

        wait_for(lambda: provider.read("BTC").status == state)


def test_lost_data_leaves_the_last_book_and_the_next_ones_count_as_a_reset(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.submit_all(book(symbol, update_id=50) for symbol in HUNDRED)
    with RedisMarketDataProvider(redis_url, "binance", HUNDRED) as provider:
        before = provider.status(HUNDRED[0]).seq

        client.flushall()
        client.script_flush()
        assert update_id(provider, HUNDRED[0]) == 50
        writer.submit_all(book(symbol, update_id=7) for symbol in HUNDRED)

        wait_for(lambda: all(update_id(provider, symbol) == 7 for symbol in HUNDRED))
        assert provider.status(HUNDRED[0]).seq > before
        assert (total(provider, "resets"), total(provider, "missed")) == (100, 0)


def test_a_server_restarted_without_its_data_is_subscribed_again(
    own_redis_server: LocalServer, own_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bookbus.consumers.bus.reader")
    BusWriter(own_client).submit_all(book(symbol, update_id=50) for symbol in HUNDRED)
    with RedisMarketDataProvider(own_redis_server.url, "binance", HUNDRED) as provider:
        own_redis_server.kill()
        wait_for(lambda: not provider.get_connection_status().connected)
        assert update_id(provider, HUNDRED[0]) == 50
        assert "closed the connection" in provider.get_connection_status().error

        own_redis_server.start()
        BusWriter(own_client).submit_all(book(symbol, update_id=51) for symbol in HUNDRED)

        wait_for(lambda: all(update_id(provider, symbol) == 51 for symbol in HUNDRED), timeout=2.0)
        wait_for(lambda: provider.get_connection_status().connected)
        assert provider.get_connection_status().reconnect_count == 1
    # The server may refuse connections for a moment before it answers: one warning for each cause.
    *warnings, last = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert {level for level, _ in warnings} == {"WARNING"}
    assert len(set(warnings)) == len(warnings)
    assert last[0] == "INFO"


def test_a_disconnected_subscriber_reconnects_and_counts_what_it_missed(
    own_redis_server: LocalServer, own_client: redis.Redis
) -> None:
    BusWriter(own_client).submit_all(book(symbol, update_id=1) for symbol in HUNDRED)
    with push(own_redis_server.url, *HUNDRED) as provider:
        first = {symbol: provider.status(symbol).seq for symbol in HUNDRED}
        with Busy(own_redis_server.url, HUNDRED) as busy:
            for cuts in (1, 2, 3):
                own_client.client_kill_filter(_type="pubsub")
                wait_for(partial(reconnected, provider, cuts))
        assert busy.failures == []
        wait_for(lambda: provider.status(HUNDRED[-1]).seq == stored_seq(own_client, HUNDRED[-1]))

        wait_for(partial(accounted, provider, first))
        assert [provider.status(symbol).seq for symbol in HUNDRED] == [
            stored_seq(own_client, symbol) for symbol in HUNDRED
        ]
        assert total(provider, "resets") == 0


def test_a_stopped_reader_is_disconnected_and_recovers_while_others_continue(
    own_redis_server: LocalServer, own_client: redis.Redis
) -> None:
    own_client.config_set("client-output-buffer-limit", "pubsub 1mb 512kb 1")
    writer = BusWriter(own_client)
    writer.submit_all(book(symbol, update_id=1) for symbol in HUNDRED)
    slow, other = push(own_redis_server.url, *HUNDRED), push(own_redis_server.url, *HUNDRED)
    go_on = threading.Event()
    go_on.set()
    publish = slow._changes.publish

    def stand_still(symbol: str, count: int) -> None:
        assert go_on.wait(60)
        publish(symbol, count)

    slow._changes.publish = stand_still  # type: ignore[method-assign, assignment]
    with slow, other:
        first = {symbol: slow.status(symbol).seq for symbol in HUNDRED}
        go_on.clear()
        last = 1
        while len(own_client.client_list(_type="pubsub")) == 2:
            last += 1
            writer.submit_all(book(symbol, update_id=last) for symbol in HUNDRED)
        go_on.set()

        wait_for(lambda: all(update_id(slow, symbol) == last for symbol in HUNDRED))
        wait_for(lambda: update_id(other, HUNDRED[-1]) == last)
        assert slow.get_connection_status().reconnect_count == 1
        wait_for(partial(accounted, slow, first))
        assert total(slow, "missed") > 0
        assert (other.get_connection_status().reconnect_count, total(other, "missed")) == (0, 0)


def accounted(provider: RedisMarketDataProvider, first: dict[str, int]) -> bool:
    """Whether every update since `first` was received or is known to be missed."""
    statuses = provider.get_connection_status().symbols
    return all(
        statuses[symbol].received + statuses[symbol].missed == statuses[symbol].seq - begin + 1
        for symbol, begin in first.items()
    )


def reconnected(provider: RedisMarketDataProvider, count: int) -> bool:
    status = provider.get_connection_status()
    return status.connected and status.reconnect_count == count


def stored_seq(client: redis.Redis, symbol: str) -> int:
    return int(client.hget(NAMES.book("binance", symbol), "seq") or 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_hangs_makes_books_old_and_its_return_makes_them_live(
    own_redis_server: LocalServer, own_client: redis.Redis, mode: Mode
) -> None:
    writer = BusWriter(own_client)
    writer.update()
    with RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"], mode, max_age=1.0) as provider:
        own_redis_server.pause()
        try:
            wait_for(lambda: provider.read("BTC").status is BookStatus.STALE)
            assert update_id(provider) == 100
            if mode == "push":
                wait_for(lambda: "no answer for 5 s" in provider.get_connection_status().error, timeout=10)
            else:
                assert "timed out" in provider.get_connection_status().error
        finally:
            own_redis_server.resume()
        writer.update(update_id=101)

        wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE and update_id(provider) == 101)


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_hangs_at_the_start_is_an_error_within_the_limit(mode: Mode) -> None:
    with silent_server() as (url, _):
        provider = RedisMarketDataProvider(url, "binance", ["BTC"], mode)
        began = time.monotonic()
        with pytest.raises(BusConnectionError, match=r"does not answer within 5 s|no answer for 5 s|timed out"):
            provider.start()
        assert time.monotonic() - began < 6.5


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "json": b'{"v": 1}',
    "no msgpack": b"\xc1" * 64,
    "head alone": HEAD,
    "corrupted": HEAD + (2**63).to_bytes(8, "big") + b"\x00" * 64,
    "crossed": encode(book(seq=2**40, bids=((101.0, 1.0),))),
    "another symbol": encode(book("ETH-USDT", seq=2**40)),
    "large": b"x" * 1_000_000,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_bytes_on_the_channel_are_counted_and_the_last_good_book_stays(
    redis_url: str, client: redis.Redis, kind: str
) -> None:
    writer = BusWriter(client)
    with push(redis_url, "BTC") as provider:
        writer.update(update_id=1)
        wait_for(lambda: update_id(provider) == 1)

        client.publish(BTC, FOREIGN[kind])
        wait_for(lambda: update_id(provider) and provider.status("BTC").skipped)

        assert update_id(provider) == 1
        assert provider.read("BTC").status is BookStatus.LIVE
        writer.update(update_id=2)
        wait_for(lambda: update_id(provider) == 2)
        assert (provider.status("BTC").skipped, provider.status("BTC").missed) == (1, 0)


def received(provider: RedisMarketDataProvider) -> int:
    """Without reading the book, as `status` would."""
    return provider._counts("BTC-USDT").received


def test_a_corrupted_message_after_an_unread_book_does_not_hide_it(redis_url: str, client: redis.Redis) -> None:
    with push(redis_url, "BTC") as provider:
        BusWriter(client).update(update_id=1)
        wait_for(lambda: received(provider) == 1)
        client.publish(BTC, FOREIGN["corrupted"])
        wait_for(lambda: received(provider) == 2)

        assert update_id(provider) == 1


def test_a_book_hidden_by_corrupted_messages_is_found_in_the_hash(redis_url: str, client: redis.Redis) -> None:
    with push(redis_url, "BTC") as provider:
        BusWriter(client).update(update_id=1)
        client.publish(BTC, FOREIGN["corrupted"])
        client.publish(BTC, FOREIGN["crossed"])

        wait_for(lambda: update_id(provider) == 1)
        assert provider.read("BTC").status is BookStatus.LIVE


def test_what_was_lost_on_the_channel_is_found_in_the_hash(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.update(update_id=1)
    with writer.confirming(), push(redis_url, "BTC") as provider:
        seq = provider.status("BTC").seq + 1
        client.hset(BTC, items=["seq", seq, "book", encode(book(seq=seq, update_id=2))])

        wait_for(lambda: update_id(provider) == 2)
        assert provider.read("BTC").status is BookStatus.LIVE


@pytest.mark.parametrize("mode", MODES)
def test_a_foreign_type_under_one_key_is_said_and_leaves_the_others_alone(
    redis_url: str, client: redis.Redis, mode: Mode
) -> None:
    client.set(BTC, "not a hash")
    BusWriter(client).update("ETH-USDT")
    with RedisMarketDataProvider(redis_url, "binance", ["BTC", "ETH"], mode) as provider:
        reading = provider.read("BTC")

        assert (reading.snapshot, reading.status) == (None, BookStatus.MISSING)
        assert "WRONGTYPE" in reading.reason
        assert BTC in reading.reason
        assert update_id(provider, "ETH") == 100

        client.delete(BTC)
        BusWriter(client).update("BTC-USDT", 7)
        wait_for(lambda: update_id(provider) == 7)


@pytest.mark.parametrize("mode", MODES)
def test_foreign_bytes_in_the_hash_are_said(redis_url: str, client: redis.Redis, mode: Mode) -> None:
    client.hset(BTC, mapping={"seq": "1", "book": "foreign", "confirmed_us": "1"})
    with RedisMarketDataProvider(redis_url, "binance", ["BTC"], mode) as provider:
        reading = provider.read("BTC")

    assert reading.status is BookStatus.MISSING
    assert "is no book" in reading.reason


@pytest.mark.parametrize("mode", MODES)
def test_passwords_that_are_wrong_or_absent_are_told_without_repeating_them(
    own_redis_server: LocalServer, own_client: redis.Redis, mode: Mode
) -> None:
    port = own_redis_server.port
    own_client.config_set("requirepass", "correct")
    expected = {
        f"redis://127.0.0.1:{port}/0": "wants a user and its password",
        f"redis://:secret@127.0.0.1:{port}/0": "refuses this user name and password",
        f"redis://somebody:secret@127.0.0.1:{port}/0": "refuses this user name and password",
    }
    for url, message in expected.items():
        with pytest.raises(BusConnectionError, match=message) as caught:
            RedisMarketDataProvider(url, "binance", ["BTC"], mode).start()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    with RedisMarketDataProvider(f"redis://:correct@127.0.0.1:{port}/0", "binance", ["BTC"], mode) as provider:
        assert provider.get_connection_status().connected


@pytest.mark.parametrize("mode", MODES)
def test_nobody_there_is_told_with_what_to_do(mode: Mode, own_redis_server: LocalServer) -> None:
    own_redis_server.stop()

    with pytest.raises(BusConnectionError, match=r"`make redis` or `docker compose up redis`"):
        RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"], mode).start()


def test_a_user_who_may_only_read_is_served_without_a_heartbeat(
    own_redis_server: LocalServer, own_client: redis.Redis
) -> None:
    own_client.acl_setuser(
        "viewer",
        enabled=True,
        passwords=["+v"],
        keys=["md:*"],
        channels=["md:*"],
        commands=["+hmget", "+hget", "+smembers", "+subscribe", "+ping", "+time"],
    )
    writer = BusWriter(own_client)
    writer.update(update_id=1)
    url = f"redis://viewer:v@127.0.0.1:{own_redis_server.port}/0"
    with push(url, "BTC") as provider:
        writer.update(update_id=2)
        wait_for(lambda: update_id(provider) == 2)
        wait_for(lambda: int(own_client.info("commandstats")["cmdstat_time"]["calls"]) > 3)  # one a second

        assert provider.get_connection_status().connected
        assert provider.get_connection_status().reconnect_count == 0
        assert own_client.keys("md:consumer:*") == []
    own_client.acl_setuser("viewer", enabled=True, commands=["-subscribe"])
    with pytest.raises(BusConnectionError, match="does not allow this user to read the bus"):
        push(url, "BTC").start()


def test_a_reader_is_seen_while_it_lives(redis_url: str, client: redis.Redis) -> None:
    BusWriter(client).update()
    with push(redis_url, "BTC", "ETH"):
        wait_for(lambda: client.keys("md:consumer:*"))
        (key,) = map(as_text, client.keys("md:consumer:*"))
        fields = {as_text(name): as_text(value) for name, value in client.hgetall(key).items()}

        assert 0 < client.ttl(key) <= 5
        assert fields["symbols"] == "BTC-USDT ETH-USDT"
        assert (fields["exchange"], fields["received"], fields["missed"]) == ("binance", "1", "0")
        named = [entry["name"] for entry in client.client_list()]
        assert named.count("bookbus:" + key.removeprefix("md:consumer:")) == 2
    wait_for(lambda: client.keys("md:consumer:*") == [])


def newest(provider: RedisMarketDataProvider) -> int:
    book = provider.get_latest_snapshot("BTC")
    return 0 if book is None else book.update_id


async def test_every_update_is_handed_out_or_counted_as_merged(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client)
    writer.update(update_id=1)
    handed_out = merged = 0
    async with push(redis_url, "BTC") as provider:
        submitting = asyncio.create_task(
            asyncio.to_thread(lambda: [writer.update(update_id=number) for number in range(2, 402)])
        )
        async for snapshot, conflated in provider.updates("BTC"):
            handed_out += 1
            merged += conflated
            if snapshot.update_id == 401:
                break
            # A slow reader: it comes for the next one when all have arrived.
            await submitting
            await await_for(lambda: newest(provider) == 401, 10, "the last update")

    assert handed_out + merged == 401
    assert merged > 0


def test_a_thousand_foreign_messages_a_second_leave_memory_as_it_was(redis_url: str, client: redis.Redis) -> None:
    BusWriter(client).update()
    with push(redis_url, "BTC") as provider:
        pipeline = client.pipeline(transaction=False)
        for _ in range(2_000):
            pipeline.publish(BTC, b"\xc1" * 1_000)
        pipeline.execute()

        wait_for(lambda: provider.status("BTC").skipped == 2_000)
        assert update_id(provider) == 100


@pytest.mark.parametrize("read", [RedisMarketDataProvider.on_snapshot, RedisMarketDataProvider.updates])
def test_pull_says_that_it_has_no_updates(read: Callable[..., object]) -> None:
    provider = RedisMarketDataProvider("redis://127.0.0.1:1/0", symbols=["BTC"], mode="pull")

    with pytest.raises(RuntimeError, match="mode='push'"):
        read(provider, "BTC")


def test_reading_in_pull_mode_never_raises_when_the_server_goes(
    own_redis_server: LocalServer, own_client: redis.Redis
) -> None:
    BusWriter(own_client).update()
    with RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"], "pull") as provider:
        assert update_id(provider) == 100
        own_redis_server.kill()

        assert update_id(provider) == 100
        assert provider.get_latest_snapshot("ETH") is None
        assert "make redis" in provider.get_connection_status().error

        own_redis_server.start()
        BusWriter(own_client).update(update_id=3)
        assert update_id(provider) == 3
        assert provider.status("BTC").resets == 1


def test_the_child_of_a_fork_asks_over_a_connection_of_its_own(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    BusWriter(client).update()
    with RedisMarketDataProvider(redis_url, "binance", ["BTC"], "pull") as provider:
        before = {entry["id"] for entry in client.client_list() if entry["name"] == "bookbus-poller"}

        monkeypatch.setattr("bookbus.consumers.bus.poller.fork_count", lambda: 1)

        assert update_id(provider) == 100
        after = {entry["id"] for entry in client.client_list() if entry["name"] == "bookbus-poller"}
        assert len(after - before) == 1


@pytest.mark.parametrize("field", ["book", "confirmed_us"])
def test_a_hash_that_is_too_large_is_one_book_without_status_and_no_others(
    own_redis_server: LocalServer, own_client: redis.Redis, field: str
) -> None:
    eth = NAMES.book("binance", "ETH-USDT")
    writer = BusWriter(own_client)
    writer.update("BTC-USDT")
    writer.update("ETH-USDT")
    own_client.hset(eth, field, b"9" * 20_000_000)

    with RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC", "ETH"]) as provider:
        writer.update("BTC-USDT", 101)
        wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 10, "a live book")
        assert provider.read("ETH").snapshot is None
        assert "too large" in provider.status("ETH").reason
        assert provider.get_connection_status().error == ""

        own_client.delete(eth)
        writer.update("ETH-USDT")
        wait_for(lambda: provider.read("ETH").status is BookStatus.LIVE, 10, "the other book")
