"""The broker: orders, their fills and the account in one place, and a record of each order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.consumers.paper.broker import PaperBroker, Position
from bookbus.consumers.paper.execution import make_execution
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.records import RunRecorder
from bookbus.consumers.paper.settings import RunSettings, Target
from bookbus.schemas.instruments import TradingStatus
from bookbus.schemas.trade import Trade
from tests.support.builders import book
from tests.support.orders import START_US, order

NOW = START_US / 1e6
# Bids 99.5 x 1.0 and 99.0 x 2.0, asks 100.5 x 1.5 and 101.0 x 2.5.
QUOTE = VenueQuote("binance", 10.0, book(), 0.0, "live", "", "")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RunRecorder]:
    made = RunRecorder(tmp_path, "S")
    yield made
    made.close()


def broker_of(records: RunRecorder, fill_model: str) -> PaperBroker:
    settings = RunSettings(fill_model=fill_model, cash=150.0)
    return PaperBroker(settings, "USDT", ["binance"], make_execution(settings, None, "received"), records)


def opened(broker: PaperBroker) -> Position:
    return broker.open_position(NOW, "BTC-USDT", QUOTE, Target(1.0, 5.0), None)


def test_order_that_takes_is_filled_booked_and_recorded_at_once(records: RunRecorder) -> None:
    broker = broker_of(records, "book_walk")
    position = opened(broker)

    sent = broker.send(NOW, position, QUOTE, order("buy", 1.0, 100.5))

    assert sent.fill is not None
    assert (sent.fill.quantity, sent.fill.price) == (1.0, 100.5)
    assert (float(position.bought), broker.portfolio.holding("binance", "BTC-USDT")) == (1.0, 1.0)
    assert broker.portfolio.balances()["binance"]["cash"] == pytest.approx(150.0 - 100.5 - 0.1005)
    assert (records.fills, records.counters.entries) == (1, 1)


def test_waiting_entry_reserves_its_cash_until_it_is_done(records: RunRecorder) -> None:
    broker, entry = broker_of(records, "queue"), order("buy", 1.0, 99.0)
    assert broker.rejection(QUOTE, entry) is None

    sent = broker.send(NOW, opened(broker), QUOTE, entry)
    while_waiting = broker.rejection(QUOTE, entry)
    broker.finish(NOW, sent)

    assert sent.waiting is not None
    assert while_waiting is not None
    assert while_waiting.code == "no_balance"
    assert broker.rejection(QUOTE, entry) is None
    assert records.counters.unfilled == {"not_reached": 1}


def test_cancelled_order_is_done_after_a_second_even_if_no_event_follows(records: RunRecorder) -> None:
    broker = broker_of(records, "queue")
    sent = broker.send(NOW, opened(broker), QUOTE, order("buy", 1.0, 99.0))

    broker.cancel(NOW, sent)

    assert [broker.is_done(NOW + later, sent) for later in (0.0, 0.9, 1.0)] == [False, False, True]


def test_trade_that_bought_nothing_does_not_count_as_closed(records: RunRecorder) -> None:
    broker = broker_of(records, "queue")
    position = opened(broker)

    broker.close_position(position, "end")

    assert (broker.open_trades, records.counters.closed) == (0, 0)


@pytest.mark.parametrize(
    ("trading", "filled"),
    [("halted", 0.0), ("auction", 0.0), ("delisted", 0.0), ("unknown", 1.0), ("trading", 1.0), ("warning", 1.0)],
)
def test_waiting_order_is_not_filled_while_its_market_is_halted(
    records: RunRecorder, trading: TradingStatus, filled: float
) -> None:
    broker = broker_of(records, "queue")
    sent = broker.send(NOW, opened(broker), QUOTE, order("buy", 1.0, 99.0))
    at = START_US + 1_000_000
    through = Trade("binance", "BTC-USDT", "BTCUSDT", 1, 98.5, 10.0, "sell", at, at)

    broker.receive(NOW + 1, sent, through, [QUOTE._replace(trading=trading)])

    assert broker.portfolio.holding("binance", "BTC-USDT") == filled
