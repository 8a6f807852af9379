"""Notification of listeners about changed books."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bookbus.consumers.change_feed import ChangeFeed
from bookbus.consumers.reading import Reading, Update
from bookbus.schemas.instruments import TradingStatus
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.builders import book
from tests.support.waiting import await_for, wait_for


class Books:
    """The books of a provider, and the feed that notifies of their changes."""

    def __init__(self) -> None:
        self.newest: dict[str, OrderBookSnapshot] = {}
        self.status = BookStatus.LIVE
        self.trading: TradingStatus = "trading"
        self.feed = ChangeFeed(self.read, check_interval=0.01)

    def read(self, symbol: str) -> Reading:
        return Reading(self.newest.get(symbol), self.status, 0.0, "", self.trading)

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


Told = tuple[int, int, BookStatus, str]


def told(update: Update) -> Told:
    return update.snapshot.seq, update.conflated, update.status, update.trading


class Following:
    """What the updates of BTC-USDT brought, with a feed that checks statuses every 10 ms."""

    def __init__(self) -> None:
        self.books = Books()
        self.books.feed.open()
        self.books.change(1)
        self.seen: list[Told] = []
        self._task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        async for update in self.books.feed.updates(["BTC-USDT"]):
            self.seen.append(told(update))

    async def sees(self, *updates: Told) -> None:
        await await_for(lambda: len(self.seen) >= len(updates))
        await asyncio.sleep(0.05)  # several checks, which must bring nothing more
        assert self.seen == list(updates)

    async def end(self) -> None:
        await asyncio.to_thread(self.books.feed.close)
        await self._task


LIVE, STALE, DOWN, MISSING = BookStatus.LIVE, BookStatus.STALE, BookStatus.FEEDER_DOWN, BookStatus.MISSING


async def test_a_status_that_changes_without_a_message_is_an_update_once_an_episode() -> None:
    following = Following()
    first: Told = (1, 0, LIVE, "trading")
    await following.sees(first)

    following.books.status = STALE
    await following.sees(first, (1, 0, STALE, "trading"))
    following.books.status = DOWN
    await following.sees(first, (1, 0, STALE, "trading"), (1, 0, DOWN, "trading"))
    following.books.status = LIVE
    await following.sees(first, (1, 0, STALE, "trading"), (1, 0, DOWN, "trading"), first)
    await following.end()


async def test_a_change_of_the_trading_status_is_an_update() -> None:
    following = Following()
    await following.sees((1, 0, LIVE, "trading"))

    following.books.trading = "halted"
    following.books.feed.publish("BTC-USDT", 0)
    await following.sees((1, 0, LIVE, "trading"), (1, 0, LIVE, "halted"))
    following.books.change(2)
    await following.sees((1, 0, LIVE, "trading"), (1, 0, LIVE, "halted"), (2, 0, LIVE, "halted"))
    await following.end()


async def test_a_notification_of_a_status_that_did_not_change_is_no_update() -> None:
    following = Following()
    await following.sees((1, 0, LIVE, "trading"))

    following.books.feed.publish("BTC-USDT", 0)
    await following.sees((1, 0, LIVE, "trading"))

    following.books.change(2)
    await following.sees((1, 0, LIVE, "trading"), (2, 0, LIVE, "trading"))
    await following.end()


async def test_a_book_that_is_gone_is_an_update_with_the_last_one() -> None:
    following = Following()
    await following.sees((1, 0, LIVE, "trading"))

    following.books.newest.clear()
    following.books.status = MISSING
    await following.sees((1, 0, LIVE, "trading"), (1, 0, MISSING, "trading"))
    await following.end()


async def test_a_newer_book_counts_only_its_own_updates_after_a_status_change() -> None:
    following = Following()
    await following.sees((1, 0, LIVE, "trading"))
    following.books.status = STALE
    await following.sees((1, 0, LIVE, "trading"), (1, 0, STALE, "trading"))

    following.books.status = LIVE
    following.books.change(4, count=3)
    await following.sees((1, 0, LIVE, "trading"), (1, 0, STALE, "trading"), (4, 2, LIVE, "trading"))
    await following.end()


def test_status_callbacks_get_changes_of_the_status_and_others_only_books() -> None:
    books = Books()
    seen: list[int] = []
    statuses: list[Told] = []
    books.feed.add_callback(lambda snapshot: seen.append(snapshot.seq))
    books.feed.add_status_callback(lambda update: statuses.append(told(update)))
    books.feed.open()

    books.change(1)
    wait_for(lambda: statuses)
    books.change(2)
    wait_for(lambda: seen[-1] == 2)
    books.status = STALE
    wait_for(lambda: len(statuses) == 2)
    books.trading = "halted"
    wait_for(lambda: len(statuses) == 3)
    books.feed.close()

    assert seen == [1, 2]
    assert statuses == [(1, 0, LIVE, "trading"), (2, 0, STALE, "trading"), (2, 0, STALE, "halted")]


def test_a_status_callback_that_fails_is_counted_and_called_again() -> None:
    books = Books()
    calls: list[Update] = []

    def callback(update: Update) -> None:
        calls.append(update)
        raise SystemExit(1)

    books.feed.open()
    books.feed.add_status_callback(callback)
    books.change(1)
    wait_for(lambda: len(calls) == 1)
    books.status = STALE
    wait_for(lambda: len(calls) == 2)
    books.feed.close()

    assert books.feed.callback_errors == 2


def test_a_coroutine_function_is_no_status_callback() -> None:
    async def callback(update: Update) -> None: ...

    with pytest.raises(TypeError, match="use `async for`"):
        Books().feed.add_status_callback(callback)  # type: ignore[arg-type]
