"""Passive orders: a place in the queue, moved by trades and cancellations, and nothing before it can be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.fills.model import Fill, FillReason, TapeEvent, no_fill
from bookbus.consumers.paper.fills.queue import QueuedOrder, QueueFill
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side
from tests.support.builders import book
from tests.support.orders import START_US, order, trade

LATENCY = 1_000
EXCHANGE_US = START_US - 500
"""Exchange's time of the first book, which is received at `START_US`."""


def shown(bid: float, at: int = 0, *, deeper: Levels = ((98.0, 1.0),), exchange_at: int | None = None) -> TapeEvent:
    """A book that shows `bid` at 99.0, behind a better level; received `at` after the start."""
    bids = ((99.5, 1.0), *(((99.0, bid),) if bid else ()), *deeper)
    exchange_us = EXCHANGE_US + (at if exchange_at is None else exchange_at)
    return book(received_us=START_US + at, exchange_us=exchange_us, bids=bids, asks=((100.0, 1.0), (101.0, 1.0)))


def first_book(bid: float = 5.0) -> OrderBookSnapshot:
    event = shown(bid)
    assert isinstance(event, OrderBookSnapshot)
    return event


def waiting(quantity: float = 2.0, share: float = 0.0, bid: float = 5.0) -> QueuedOrder:
    """A BUY at 99.0 that has joined the queue behind `bid`."""
    queued = QueueFill(share, LATENCY).place(order("buy", quantity, 99.0), first_book(bid))
    queued.receive(shown(bid, 2_000))
    return queued


def sold(quantity: float, at: int, price: float = 99.0, *, exchange_at: int | None = None) -> TapeEvent:
    happened = EXCHANGE_US + (at if exchange_at is None else exchange_at)
    return trade(price, quantity, START_US + at, "sell", exchange_us=happened)


def test_an_order_joins_behind_all_that_is_displayed() -> None:
    assert waiting().ahead == 5.0


def test_trades_at_the_price_serve_those_ahead_and_then_us() -> None:
    queued = waiting()

    fills = [queued.receive(sold(quantity, 3_000 + n)) for n, quantity in enumerate((4.0, 1.5, 3.0))]

    # 4 of 5 ahead, then the last 1 and half of one for us, then the rest of our 2. From the ask of 100: 100 bps.
    assert fills == [
        None,
        Fill(0.5, 99.0, -100.0, FillReason.PARTIAL, "maker"),
        Fill(1.5, 99.0, -100.0, FillReason.FILLED, "maker"),
    ]
    assert queued.total() == Fill(2.0, 99.0, -100.0, FillReason.FILLED, "maker")
    assert queued.done


def test_a_sell_order_waits_among_the_asks() -> None:
    model = QueueFill(0.0, 0)
    tape = [trade(101.0, 1.5, START_US + n, "buy") for n in (1, 2)]

    queued = model.place(order("sell", 1.0, 101.0), first_book())
    for event in tape:
        queued.receive(event)

    assert queued.total() == Fill(1.0, 101.0, (99.5 - 101.0) / 99.5 * 1e4, FillReason.FILLED, "maker")


def test_what_traded_is_subtracted_before_anything_counts_as_cancelled() -> None:
    queued = waiting(share=0.5)

    queued.receive(sold(2.0, 3_000))
    # 5 became 1: 2 traded, so 2 were cancelled, and half of those stood ahead of us: 5 - 2 - 1, but 1 is left.
    queued.receive(shown(1.0, 4_000))

    assert queued.ahead == 1.0


def test_the_fitted_share_of_cancellations_moves_us_forward() -> None:
    queued = waiting(share=0.25)

    queued.receive(shown(3.0, 3_000))
    queued.receive(shown(9.0, 4_000))
    queued.receive(shown(5.0, 5_000))

    # 2 cancelled, of which 0.5 ahead, but only 3 are left; 6 came behind us; 4 cancelled, of which 1 ahead.
    assert queued.ahead == 2.0


def test_without_a_fitted_share_only_trades_and_what_is_left_move_us() -> None:
    queued = waiting()

    queued.receive(shown(9.0, 3_000))
    queued.receive(shown(6.0, 4_000))
    assert queued.ahead == 5.0

    queued.receive(shown(4.0, 5_000))
    assert queued.ahead == 4.0


def test_a_print_through_the_price_fills_what_printed() -> None:
    queued = waiting()

    assert queued.receive(sold(0.5, 3_000, 98.5)) == Fill(0.5, 99.0, -100.0, FillReason.PARTIAL, "maker")
    assert queued.ahead == 0.0


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(sold(50.0, 3_000, 99.5), id="a trade at a better price"),
        pytest.param(trade(99.0, 50.0, START_US + 3_000, "buy"), id="a buyer at our price"),
        pytest.param(trade(100.0, 50.0, START_US + 3_000, "buy"), id="a buyer at the ask"),
    ],
)
def test_trades_that_do_not_reach_us_change_nothing(event: TapeEvent) -> None:
    queued = waiting()

    assert queued.receive(event) is None
    assert queued.ahead == 5.0


def test_nothing_fills_before_the_order_has_arrived() -> None:
    queued = QueueFill(0.0, LATENCY).place(order("buy", 2.0, 99.0), first_book())

    assert queued.receive(sold(4.0, 999)) is None
    assert queued.ahead is None
    # What traded on our way is not ahead of us any more.
    assert queued.receive(sold(2.0, 1_000)) == Fill(1.0, 99.0, -100.0, FillReason.PARTIAL, "maker")


def test_nothing_that_was_received_before_the_order_fills_it_however_the_clocks_differ() -> None:
    # The exchange's clock is two seconds ahead of ours: what it says is later may have been on the table already.
    model = QueueFill(latency_us=LATENCY, time_source="exchange")
    queued = model.place(order("buy", 2.0, 99.0), first_book(0.0))

    early = [queued.receive(sold(5.0, -1 - n, exchange_at=2_000_000 + n)) for n in range(2)]
    fill = queued.receive(sold(5.0, 1, exchange_at=2_000_003))

    assert early == [None, None]
    assert fill is not None
    assert fill.quantity == 2.0


def test_an_order_that_the_market_overtakes_on_its_way_is_refused() -> None:
    queued = QueueFill(0.0, LATENCY).place(order("buy", 2.0, 99.0), first_book())

    queued.receive(book(received_us=START_US + 500, bids=((98.0, 1.0),), asks=((98.5, 1.0),)))
    queued.receive(sold(9.0, 2_000, 98.5))

    assert queued.total() == no_fill(FillReason.WOULD_TAKE)


def test_a_cancel_takes_effect_late_and_then_for_good() -> None:
    queued = waiting()
    queued.cancel(START_US + 3_000)

    assert queued.receive(sold(6.0, 3_999)) == Fill(1.0, 99.0, -100.0, FillReason.PARTIAL, "maker")
    assert queued.receive(sold(6.0, 4_000)) is None
    assert queued.total() == Fill(1.0, 99.0, -100.0, FillReason.PARTIAL, "maker")


def test_a_cancelled_order_that_got_nothing_says_that_it_was_not_reached() -> None:
    queued = waiting()
    queued.cancel(START_US + 3_000)
    queued.receive(shown(5.0, 4_000))

    assert queued.done
    assert queued.total() == no_fill(FillReason.NOT_REACHED)


def test_a_trade_that_the_newest_book_already_lacks_is_not_a_cancellation() -> None:
    queued = waiting(share=1.0)

    # The book that shows 2 happened after the trade of 3, which is received after it.
    queued.receive(shown(2.0, 4_000))
    assert queued.ahead == 2.0
    assert queued.receive(sold(3.0, 4_001, exchange_at=3_500)) is None

    assert queued.ahead == 2.0
    assert queued.receive(sold(2.5, 4_002, exchange_at=4_002)) == Fill(0.5, 99.0, -100.0, FillReason.PARTIAL, "maker")


@pytest.mark.parametrize("price", [99.0, 98.5])
def test_a_trade_from_before_we_joined_fills_nothing_however_late_it_comes(price: float) -> None:
    queued = QueueFill(0.0, 0).place(order("buy", 2.0, 99.0), first_book())

    assert queued.receive(sold(50.0, 5_000, price, exchange_at=-1)) is None
    assert queued.ahead == 5.0


def test_where_the_book_does_not_reach_all_that_shows_up_later_is_ahead() -> None:
    near = book(depth=2, bids=((99.5, 1.0), (99.4, 1.0)), asks=((100.0, 1.0),))
    queued = QueueFill(0.0, 0).place(order("buy", 2.0, 99.0), near)

    queued.receive(book(depth=2, received_us=START_US + 1, bids=near.bids, asks=near.asks))
    assert queued.ahead is None
    assert queued.receive(sold(1.0, 2)) is None

    queued.receive(book(depth=2, received_us=START_US + 3, bids=((99.1, 1.0), (99.0, 7.0)), asks=near.asks))
    assert queued.ahead == 7.0


def test_at_a_price_between_the_levels_nobody_is_ahead() -> None:
    queued = QueueFill(0.0, 0).place(order("buy", 2.0, 99.2), first_book())

    queued.receive(sold(0.5, 1, 99.2))

    assert queued.filled == 0.5


def test_a_book_that_is_not_live_moves_nothing() -> None:
    queued = waiting(share=1.0)

    queued.receive(book(state="suspect", received_us=START_US + 3_000, bids=((99.5, 1.0),), asks=((100.0, 1.0),)))

    assert queued.ahead == 5.0


@pytest.mark.parametrize(
    ("side", "price", "market", "reason"),
    [
        ("buy", None, first_book(), FillReason.NOT_PASSIVE),
        ("buy", 100.0, first_book(), FillReason.WOULD_TAKE),
        ("sell", 99.5, first_book(), FillReason.WOULD_TAKE),
        ("buy", 99.0, book(state="suspect"), FillReason.BOOK_NOT_LIVE),
        ("buy", 99.0, book(asks=()), FillReason.EMPTY_SIDE),
    ],
)
def test_an_order_that_cannot_wait_is_refused(
    side: Side, price: float | None, market: OrderBookSnapshot, reason: FillReason
) -> None:
    queued = QueueFill().place(order(side, 1.0, price), market)

    assert queued.done
    assert queued.total() == no_fill(reason)


def test_events_of_another_market_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="meets an event of binance:ETH-USDT"):
        waiting().receive(book("ETH-USDT"))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_between_none_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="the share of cancellations ahead"):
        QueueFill(share)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.integers(0, 80)),
        st.tuples(st.just("at"), st.integers(1, 40)),
        st.tuples(st.just("through"), st.integers(1, 40)),
        st.tuples(st.just("late"), st.integers(1, 40)),
    ),
    max_size=25,
)


@given(steps=steps, share=st.floats(0, 1), quantity=st.integers(1, 100))
def test_no_fill_exceeds_the_order_or_what_printed_at_its_price_or_through_it(
    steps: list[tuple[str, int]], share: float, quantity: int
) -> None:
    queued = waiting(quantity / 10, share)
    printed = 0.0
    for number, (kind, tenths) in enumerate(steps):
        amount, at = tenths / 10, 3_000 + number
        before = queued.filled
        if kind == "book":
            assert queued.receive(shown(amount, at)) is None
            assert queued.ahead is not None
            assert queued.done or queued.ahead <= amount
            continue
        printed += amount
        fill = queued.receive(
            sold(amount, at, 98.5 if kind == "through" else 99.0, exchange_at=2_500 if kind == "late" else None)
        )
        got = fill.quantity if fill is not None else 0.0
        assert got <= amount
        assert queued.filled == pytest.approx(before + got)

    assert queued.filled <= min(queued.order.quantity, printed + 1e-9)
    assert queued.done == (queued.filled == queued.order.quantity)
