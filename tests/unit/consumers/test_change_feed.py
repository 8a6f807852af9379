"""Notification of listeners about changed books."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bookbus.consumers.change_feed import ChangeFeed
from bookbus.consumers.reading import Update
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.builders import book
from tests.support.waiting import wait_for


class Books:
    """The books of a provider, and the feed that notifies of their changes."""

    def __init__(self) -> None:
        self.newest: dict[str, OrderBookSnapshot] = {}
        self.feed = ChangeFeed(self.newest.get)

    def change(self, seq: int, symbol: str = "BTC-USDT", count: int = 1) -> OrderBookSnapshot:
        self.newest[symbol] = book(symbol, seq=seq)
        self.feed.publish(symbol, count)
        return self.newest[symbol]


async def test_updates_begin_with_the_book_as_it_is() -> None:
    books = Books()
    books.feed.open()
    first = books.change(1)

    updates = books.feed.updates(["BTC-USDT"])

    assert await anext(updates) == Update(first, 0)
    second = books.change(2)
    assert await anext(updates) == Update(second, 0)
    await updates.aclose()


async def test_a_slow_loop_gets_the_newest_book_and_how_many_were_merged() -> None:
    books = Books()
    books.feed.open()
    updates = books.feed.updates(["BTC-USDT"])
    waiting = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)

    for seq in range(1, 5):
        newest = books.change(seq)

    assert await waiting == Update(newest, 3)
    await updates.aclose()


async def test_a_change_that_was_already_handed_out_is_not_repeated() -> None:
    books = Books()
    books.feed.open()
    updates = books.feed.updates(["BTC-USDT"])
    waiting = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    books.change(1)
    await waiting

    books.feed.publish("BTC-USDT")  # the change of a book that was already read
    waiting = asyncio.ensure_future(anext(updates))
    for _ in range(20):  # more turns of the loop than the delivery needs
        await asyncio.sleep(0)
    assert not waiting.done()

    newest = books.change(2)
    assert await waiting == Update(newest, 1)
    await updates.aclose()


async def test_updates_of_other_symbols_stay_away() -> None:
    books = Books()
    books.feed.open()
    updates = books.feed.updates(["ETH-USDT"])
    waiting = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)

    books.change(1, "BTC-USDT")
    newest = books.change(2, "ETH-USDT")

    assert (await waiting).snapshot is newest
    await updates.aclose()


async def test_updates_end_when_the_feed_closes() -> None:
    books = Books()
    books.feed.open()

    async def follow() -> list[Update]:
        return [update async for update in books.feed.updates(["BTC-USDT"])]

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    await asyncio.to_thread(books.feed.close)

    assert await following == []
    assert [update async for update in books.feed.updates(["BTC-USDT"])] == []


def test_a_callback_gets_the_newest_book_in_a_thread_of_its_own() -> None:
    books = Books()
    seen: list[tuple[OrderBookSnapshot, threading.Thread]] = []
    books.feed.add_callback(lambda snapshot: seen.append((snapshot, threading.current_thread())))
    books.feed.open()

    newest = books.change(1)
    wait_for(lambda: seen)
    books.feed.close()

    ((snapshot, thread),) = seen
    assert snapshot is newest
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_a_slow_callback_gets_only_the_newest() -> None:
    books = Books()
    entered, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def callback(snapshot: OrderBookSnapshot) -> None:
        seen.append(snapshot.seq)
        entered.set()
        assert go_on.wait(5)

    books.feed.open()
    books.feed.add_callback(callback)
    books.change(1)
    assert entered.wait(5)
    for seq in range(2, 100):
        books.change(seq)
    go_on.set()

    wait_for(lambda: seen[-1] == 99)
    books.feed.close()
    assert seen == [1, 99]


def test_a_callback_that_fails_is_logged_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    books = Books()
    seen: list[int] = []

    def callback(snapshot: OrderBookSnapshot) -> None:
        seen.append(snapshot.seq)
        raise KeyError("a strategy's bug")

    books.feed.add_callback(callback)
    books.feed.open()
    books.change(1)
    wait_for(lambda: seen == [1])
    books.change(2)
    wait_for(lambda: seen == [1, 2])
    books.feed.close()

    assert [record.getMessage() for record in caplog.records] == ["callback failed on binance BTC-USDT"] * 2


def test_a_feed_can_be_closed_from_its_own_callback() -> None:
    books = Books()
    closed = threading.Event()

    def callback(_snapshot: OrderBookSnapshot) -> None:
        books.feed.close()
        closed.set()

    books.feed.add_callback(callback)
    books.feed.open()
    books.change(1)

    assert closed.wait(5)


def test_a_listener_whose_loop_is_gone_does_not_disturb_the_others() -> None:
    books = Books()
    books.feed.open()
    books.change(1)
    updates = books.feed.updates(["BTC-USDT"])
    loop = asyncio.new_event_loop()
    loop.run_until_complete(anext(updates))
    loop.close()
    seen: list[int] = []
    books.feed.add_callback(lambda snapshot: seen.append(snapshot.seq))

    books.change(2)
    books.change(3)

    wait_for(lambda: 3 in seen)
    books.feed.close()
    asyncio.run(updates.aclose())


@pytest.mark.parametrize(
    "error", [KeyError("bug"), SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()]
)
def test_whatever_a_callback_raises_is_logged_and_counted_and_the_others_go_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    books = Books()
    seen: list[int] = []

    def callback(_: OrderBookSnapshot) -> None:
        raise error

    books.feed.add_callback(callback)
    books.feed.add_callback(lambda snapshot: seen.append(snapshot.seq))
    books.feed.open()
    for seq in (1, 2):
        books.change(seq)
        wait_for(lambda: len(seen) == seq)  # noqa: B023 - called in this round
    books.feed.close()

    assert books.feed.callback_errors == 2
    assert [(record.getMessage(), record.exc_info and record.exc_info[1]) for record in caplog.records] == [
        ("callback failed on binance BTC-USDT", error)
    ] * 2


async def coroutine_function(snapshot: OrderBookSnapshot) -> None:
    raise AssertionError


async def generator_function(snapshot: OrderBookSnapshot) -> AsyncIterator[None]:
    yield


class AsyncCallable:
    async def __call__(self, snapshot: OrderBookSnapshot) -> None:
        raise AssertionError

    async def method(self, snapshot: OrderBookSnapshot) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    "callback",
    [
        coroutine_function,
        generator_function,
        functools.partial(coroutine_function),
        AsyncCallable(),
        AsyncCallable().method,
        None,
    ],
)
def test_a_coroutine_function_is_refused_when_it_is_registered(callback: Any) -> None:
    with pytest.raises(TypeError, match="no plain function"):
        Books().feed.add_callback(callback)


def test_a_callback_that_returns_a_coroutine_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    books = Books()
    books.feed.add_callback(lambda snapshot: coroutine_function(snapshot))  # type: ignore[arg-type]
    books.feed.open()
    books.change(1)

    wait_for(lambda: books.feed.callback_errors == 1)
    books.feed.close()

    assert "returned a coroutine" in caplog.text


async def test_updates_of_all_bring_symbols_that_are_not_known_yet() -> None:
    books = Books()
    books.feed.open()
    first = books.change(1)
    updates = books.feed.updates(["BTC-USDT"], others=True)

    assert await anext(updates) == Update(first, 0)
    later = books.change(2, "SOL-USDT")
    assert await anext(updates) == Update(later, 0)
    await updates.aclose()
