"""Trades that wait: all of them, in order, up to a limit."""

import hiredis

from bookbus.feeders.bus.outbox import PublisherCounters, TradeQueue
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.trade import Trade


def trades(*ids: int) -> list[Trade]:
    return [Trade("binance", "BTC-USDT", "BTCUSDT", trade_id, 100.5, 0.25, "sell", 1, 2) for trade_id in ids]


def queue_of(*ids: int, capacity: int = 5) -> tuple[TradeQueue, PublisherCounters]:
    counters = PublisherCounters()
    queue = TradeQueue(RedisNames(), capacity, counters, lambda _: None)
    for trade in trades(*ids):
        queue.put(trade)
    return queue, counters


def test_the_oldest_are_taken_first() -> None:
    queue, _ = queue_of(1, 2, 3)

    assert queue.take(2) == trades(1, 2)
    assert queue.take(2) == trades(3)
    assert len(queue) == 0


def test_what_does_not_fit_pushes_out_the_oldest() -> None:
    queue, counters = queue_of(1, 2, 3, 4, 5, 6, 7)

    assert queue.take(9) == trades(3, 4, 5, 6, 7)
    assert counters.trades_dropped == 2


def trade_of(symbol: str, trade_id: int, received_us: int) -> Trade:
    return Trade("binance", symbol, symbol, trade_id, 100.5, 0.25, "sell", 1, received_us)


def test_the_oldest_of_all_streams_is_pushed_out() -> None:
    queue, counters = queue_of(capacity=3)
    for trade in (trade_of("B", 1, 20), trade_of("A", 1, 10), trade_of("A", 2, 40), trade_of("B", 2, 30)):
        queue.put(trade)

    assert sorted(trade.received_us for trade in queue.take(9)) == [20, 30, 40]
    assert counters.trades_dropped == 1


def test_a_busy_stream_does_not_hold_up_the_others() -> None:
    queue, _ = queue_of(capacity=10)
    for trade_id in range(3):
        queue.put(trade_of("A", trade_id, 1))
    queue.put(trade_of("B", 7, 1))

    assert queue.take(2) == [trade_of("A", 0, 1), trade_of("A", 1, 1)]
    assert queue.take(2) == [trade_of("B", 7, 1), trade_of("A", 2, 1)]
    assert len(queue) == 0


def test_streams_that_are_not_ready_keep_their_trades() -> None:
    queue, _ = queue_of(capacity=10)
    for symbol in ("A", "B"):
        queue.put(trade_of(symbol, 1, 1))

    assert queue.take(9, lambda stream: stream.name.endswith("B")) == [trade_of("B", 1, 1)]
    assert queue.take(9) == [trade_of("A", 1, 1)]


def test_requeued_trades_come_before_newer_ones_and_give_way_to_them() -> None:
    queue, counters = queue_of(1, 2, 3)
    taken = queue.take(3)
    for trade in trades(4, 5, 6):
        queue.put(trade)

    queue.requeue(taken)

    assert queue.take(9) == trades(2, 3, 4, 5, 6)
    assert counters.trades_dropped == 1


def test_nothing_is_requeued_into_a_full_queue() -> None:
    queue, counters = queue_of(1)
    taken = queue.take(1)
    for trade in trades(2, 3, 4, 5, 6):
        queue.put(trade)

    queue.requeue(taken)

    assert queue.take(9) == trades(2, 3, 4, 5, 6)
    assert counters.trades_dropped == 1


def test_a_trade_is_one_entry_with_its_own_id() -> None:
    queue, _ = queue_of()
    reader = hiredis.Reader()
    (trade,) = trades(7)

    reader.feed(queue.pack(trade))

    assert reader.gets() == [
        *(b"XADD", b"md:trades:binance:BTC-USDT", b"MAXLEN", b"~", b"10000", b"7-0"),
        *(b"price", b"100.5", b"quantity", b"0.25", b"aggressor", b"sell"),
        *(b"exchange_us", b"1", b"received_us", b"2"),
    ]


def test_replies_are_counted_by_what_became_of_the_trade() -> None:
    queue, counters = queue_of()
    known = hiredis.ReplyError("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    full = hiredis.ReplyError("OOM full")

    errors = list(queue.apply_replies(trades(1, 2, 3), [b"1-0", known, full]))

    assert errors == [("md:trades:binance:BTC-USDT", full)]
    assert (counters.trades, counters.trade_duplicates, counters.trades_dropped) == (1, 1, 1)
