"""Whether a table may speak for a run."""

from msgspec.structs import replace

from bookbus.consumers.paper.session import mismatches
from bookbus.consumers.paper.settings import RunSettings
from tests.support.calibrations import METHOD, table, tape_info

QUEUE = RunSettings(fill_model="queue")
BINANCE = ("binance",)


def test_a_table_of_orders_like_those_of_the_run_fits() -> None:
    assert mismatches(QUEUE, table(), BINANCE, ("BTC-USDT",)) == []


def test_orders_that_are_longer_on_their_way_are_others() -> None:
    slow = replace(table(), method=replace(METHOD, latency_ms=200.0))

    assert mismatches(QUEUE, slow, BINANCE, ("BTC-USDT",)) == ["its orders take 200 ms to arrive, these 50 ms"]
    # Where the table draws the fills, nothing is on its way.
    assert mismatches(replace(QUEUE, fill_model="calibrated"), slow, BINANCE, ("BTC-USDT",)) == []


def test_every_market_of_the_run_that_no_tape_holds_is_named() -> None:
    two = table(tapes=(tape_info(), tape_info("tuesday", "b", symbols=("ETH-USDT",))))

    assert mismatches(QUEUE, two, ("binance", "upbit"), ("BTC-USDT", "ETH-USDT")) == [
        "no tape of it holds BTC-USDT on upbit, ETH-USDT on upbit"
    ]
