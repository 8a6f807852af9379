"""What reading one book gives while its messages come."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bookbus.consumers.bus.books import BusBook, BusTable
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import HEAD, WireError, encode
from tests.support.builders import book

CORRUPTED = HEAD + (9).to_bytes(8, "big") + b"corrupted"


def bus_book(*messages: bytes) -> BusBook:
    followed = BusBook("md:book:binance:BTC-USDT", "md:book:binance:BTC-USDT", "binance", "BTC-USDT")
    for number, message in enumerate(messages):
        followed.take(message, number + 1, 1, float(number), float(number))
    return followed


def test_a_book_without_messages_has_nothing_to_read() -> None:
    assert bus_book().read() == (None, None)


def test_the_same_bytes_are_decoded_once_also_after_a_confirmation() -> None:
    followed = bus_book(encode(book(seq=1)))
    first, _ = followed.read()

    followed.confirm(5.0)
    again, entry = followed.read()

    assert again is first
    assert entry is not None
    assert entry.confirmed_at == 5.0


def test_a_message_that_cannot_be_decoded_leaves_the_one_before_it() -> None:
    followed = bus_book(encode(book(seq=1)), encode(book(seq=2)), CORRUPTED)

    snapshot, entry = followed.read()

    assert snapshot == book(seq=2)
    assert entry is not None
    assert (entry.confirmed_at, followed.corrupted, followed.counts().skipped) == (1.0, True, 1)


def test_after_several_of_them_the_last_one_that_was_read_stays() -> None:
    followed = bus_book(encode(book(seq=1)))
    first, _ = followed.read()
    followed.take(CORRUPTED, 2, 1, 1.0, 1.0)
    followed.take(CORRUPTED[:-1], 3, 1, 2.0, 2.0)

    snapshot, entry = followed.read()

    assert snapshot is first
    assert entry is not None
    assert entry.confirmed_at == 0.0
    followed.confirm(9.0)
    assert followed.read()[1] is entry


def test_a_book_that_cannot_be_read_is_counted_once() -> None:
    followed = bus_book(CORRUPTED)

    assert followed.read() == (None, None)
    assert followed.read() == (None, None)
    assert followed.counts().skipped == 1


def test_the_book_of_another_symbol_or_exchange_is_none_of_ours() -> None:
    followed = bus_book()

    for other in (book("ETH-USDT"), book(exchange="upbit")):
        with pytest.raises(WireError, match="under the name md:book:binance:BTC-USDT"):
            followed.decode(encode(other))


def test_updates_that_nobody_read_are_conflated_once_a_newer_one_came() -> None:
    followed = bus_book(encode(book(seq=1)), encode(book(seq=2)))
    assert followed.counts().conflated == 1

    followed.read()
    assert followed.counts().conflated == 1

    followed.take(encode(book(seq=5)), 5, 3, 3.0, 3.0)
    assert followed.counts().conflated == 3


def test_jumps_of_several_clocks_at_once_are_all_counted() -> None:
    table = BusTable("binance", RedisNames())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(table.clock_jumped, [1.0, -1.0] * 500))

    assert table.clock_jumps == 1000


def test_a_jump_that_is_reported_while_another_is_counted_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = BusTable("binance", RedisNames())
    inner = [2.0]

    def interrupted() -> float:
        if inner:
            table.clock_jumped(inner.pop())
        return 0.0

    monkeypatch.setattr("bookbus.consumers.bus.books.boottime", interrupted)
    thread = threading.Thread(target=table.clock_jumped, args=(1.0,), daemon=True)
    thread.start()
    thread.join(10)

    assert table.clock_jumps == 2
