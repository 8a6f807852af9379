"""The contract of every market data provider."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import BookNotLiveError
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.provider_sources import SOURCES, ProviderSource, silent_server
from tests.support.waiting import await_for, wait_for


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, redis_url: str) -> Iterator[ProviderSource]:
    source = SOURCES[request.param](redis_url)
    yield source
    source.close()


@pytest.fixture(params=[name for name, source in SOURCES.items() if source.pushes])
def pushing(request: pytest.FixtureRequest, redis_url: str) -> Iterator[ProviderSource]:
    source = SOURCES[request.param](redis_url)
    yield source
    source.close()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []


def newest(provider: MarketDataProvider) -> OrderBookSnapshot:
    snapshot = provider.get_latest_snapshot("BTC")
    assert snapshot is not None
    return snapshot


def started(source: ProviderSource, max_age: float = 5.0) -> MarketDataProvider:
    """A running provider that has a book of BTC."""
    provider = source.provider(max_age)
    provider.start()
    source.bring(1)
    wait_for(lambda: provider.get_latest_snapshot("BTC"))
    return provider


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the provider's common part has warned of."""
    own = (record for record in caplog.records if record.name == "bookbus.consumers.market_data_provider")
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def test_a_symbol_never_seen_has_no_book(source: ProviderSource) -> None:
    provider = source.provider()

    assert provider.get_latest_snapshot("BTC") is None
    assert provider.read("BTC").status is BookStatus.MISSING

    with provider:
        assert provider.get_latest_snapshot(source.absent) is None
        assert provider.get_latest_snapshot("XYZ") is None
        reading = provider.read("XYZ")

    assert (reading.snapshot, reading.status, reading.age) == (None, BookStatus.MISSING, None)
    assert reading.reason
    with pytest.raises(BookNotLiveError, match="XYZ"):
        reading.require_live()


def test_standard_native_and_alias_name_the_same_book(source: ProviderSource) -> None:
    with started(source) as provider:
        books = provider.get_many(source.names)
        single = [provider.standard_symbol(name) for name in source.names]

    assert list(books) == list(source.names)
    assert {snapshot.symbol for snapshot in books.values() if snapshot is not None} == {source.names[0]}
    assert None not in books.values()
    assert single == [source.names[0]] * 3


def test_an_invalid_symbol_is_refused(source: ProviderSource) -> None:
    provider = source.provider()

    for read in (provider.get_latest_snapshot, provider.read, provider.status, provider.standard_symbol):
        with pytest.raises(SymbolError):
            read("BTC USDT")


def test_a_book_that_comes_is_live_and_is_read_at_once(source: ProviderSource) -> None:
    with started(source) as provider:
        provider.wait_until_live(["BTC"], timeout=5)
        source.bring(2)
        wait_for(lambda: newest(provider).update_id >= 2)
        reading, status = provider.read("BTC"), provider.status("BTC")

    snapshot = reading.require_live()
    assert reading.status is BookStatus.LIVE
    assert reading.reason == ""
    assert reading.age is not None
    assert 0 <= reading.age < 5
    assert status.symbol == snapshot.symbol == source.names[0]
    assert (status.state, status.missed, status.resets, status.skipped) == (BookStatus.LIVE, 0, 0, 0)
    assert status.received >= 1


def test_the_order_never_goes_back(source: ProviderSource) -> None:
    ids: list[int] = []
    done = threading.Event()
    with started(source) as provider:

        def read() -> None:
            while not done.wait(0.0005):
                ids.append(newest(provider).update_id)

        def bring_another() -> bool:
            source.bring(next(update_ids))
            return len(set(ids)) >= 5

        update_ids = count(2)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            wait_for(bring_another)
        finally:
            done.set()
            reader.join()

    assert ids == sorted(ids)


def test_started_twice_and_stopped_twice_is_once(source: ProviderSource) -> None:
    before = threading.active_count()
    provider = source.provider()
    provider.stop()
    provider.start()
    threads = threading.active_count()

    provider.start()

    assert threading.active_count() == threads
    assert provider.get_connection_status().is_running
    provider.stop()
    assert threading.active_count() == before
    provider.stop()
    assert not provider.get_connection_status().is_running


def test_a_stopped_provider_keeps_its_books_and_can_be_started_again(source: ProviderSource) -> None:
    provider = started(source)
    provider.stop()

    assert newest(provider).symbol == source.names[0]
    assert not provider.get_connection_status().thread_alive
    before = newest(provider).update_id

    provider.start()
    source.bring(before + 1)
    wait_for(lambda: newest(provider).update_id > before)
    provider.stop()


def test_an_old_book_is_returned_with_one_warning_for_each_time_it_turns_old(
    source: ProviderSource, caplog: pytest.LogCaptureFixture
) -> None:
    provider = started(source, max_age=0.3)
    last = 1
    for episode in (1, 2):
        last += 1
        source.bring(last)
        wait_for(lambda: newest(provider) and provider.read("BTC").status is BookStatus.LIVE)
        newest(provider)
        assert len(warnings(caplog)) == episode - 1

        provider.stop()
        wait_for(lambda: provider.read("BTC").status is not BookStatus.LIVE)
        held = newest(provider)
        assert newest(provider) is held
        assert provider.get_many(["BTC"])["BTC"] is held
        assert len(warnings(caplog)) == episode

        provider.start()
    provider.stop()


def test_waiting_for_what_does_not_come_names_it_and_says_why(source: ProviderSource) -> None:
    with started(source) as provider, pytest.raises(BookNotLiveError, match=r"0\.05 s: XYZ: missing \(.+\)$"):
        provider.wait_until_live(["BTC", "XYZ"], timeout=0.05)


def test_connection_status_has_every_symbol(source: ProviderSource) -> None:
    provider = source.provider()
    before = provider.get_connection_status()
    provider.start()
    source.bring(1)
    wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE)
    during = provider.get_connection_status()
    provider.stop()

    assert (before.is_running, before.connected, during.is_running, during.connected) == (False, False, True, True)
    assert before.error
    assert during.error == ""
    assert during.thread_alive is source.pushes
    assert during.reconnect_count == 0
    assert list(during.symbols) == list(provider.symbols)
    assert during.symbols[source.names[0]].state is BookStatus.LIVE


async def test_async_twins_do_the_same_and_do_not_block_the_loop(source: ProviderSource) -> None:
    provider = source.provider()
    await provider.astart()
    await asyncio.to_thread(source.bring, 1)
    await await_for(lambda: provider.get_latest_snapshot("BTC"))

    snapshot = await provider.aget_latest_snapshot("BTC")
    await provider.astop()

    assert snapshot is not None
    assert snapshot.symbol == source.names[0]
    assert await provider.aget_latest_snapshot(source.names[1]) is not None


async def test_updates_begin_with_the_book_and_end_with_the_provider(pushing: ProviderSource) -> None:
    provider = pushing.provider()
    await provider.astart()
    await asyncio.to_thread(pushing.bring, 1)
    await await_for(lambda: provider.get_latest_snapshot("BTC"))
    seen: list[int] = []

    async def follow() -> None:
        async for snapshot, conflated in provider.updates("BTC"):
            assert snapshot.symbol == pushing.names[0]
            assert conflated >= 0
            seen.append(snapshot.update_id)

    following = asyncio.create_task(follow())
    await await_for(lambda: len(seen) == 1)
    await asyncio.to_thread(pushing.bring, 2)
    await await_for(lambda: len(seen) > 1)
    await provider.astop()
    await asyncio.wait_for(following, 5)

    assert seen == sorted(set(seen))


async def test_updates_without_names_follow_every_symbol(pushing: ProviderSource) -> None:
    provider = pushing.provider()
    await provider.astart()
    await asyncio.to_thread(pushing.bring, 1)
    await await_for(lambda: provider.get_latest_snapshot("BTC"))
    seen: list[int] = []

    async def follow() -> None:
        async for snapshot, _ in provider.updates():
            if snapshot.symbol == pushing.names[0]:
                seen.append(snapshot.update_id)

    following = asyncio.create_task(follow())
    await await_for(lambda: len(seen) == 1)
    await asyncio.to_thread(pushing.bring, 2)
    await await_for(lambda: len(seen) > 1)
    await provider.astop()
    await asyncio.wait_for(following, 5)


def test_a_callback_gets_each_newer_book_from_another_thread(pushing: ProviderSource) -> None:
    provider = pushing.provider()
    seen: list[tuple[int, int]] = []
    provider.on_snapshot(lambda snapshot: seen.append((snapshot.update_id, threading.get_ident())))
    with provider:
        pushing.bring(1)
        wait_for(lambda: seen)
        before = len(seen)
        pushing.bring(2)
        wait_for(lambda: len(seen) > before)
        pushing.bring(3)

    assert threading.get_ident() not in {thread for _, thread in seen}


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_stopping_in_the_middle_of_connecting_ends_it(mode: Mode) -> None:
    outcome: list[str] = []
    with silent_server() as (url, connected):
        provider = RedisMarketDataProvider(url, "binance", ["BTC"], mode=mode)

        def start() -> None:
            try:
                provider.start()
            except ConnectionError as error:
                outcome.append(str(error))

        starting = threading.Thread(target=start)
        starting.start()
        assert connected.wait(5)
        began = time.monotonic()
        provider.stop()
        starting.join()

        assert time.monotonic() - began < 4
        assert len(outcome) == 1
        assert not provider.get_connection_status().is_running
