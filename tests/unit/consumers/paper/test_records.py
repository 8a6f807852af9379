"""What a run writes: every field, every line at once, one hash."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookbus.consumers.paper.fills.model import FillReason
from bookbus.consumers.paper.records import LATE, FillEvent, Gap, Markouts, RunRecorder, utc

FIELDS = [
    "timestamp",
    "session_id",
    "symbol",
    "side",
    "entry_bps",
    "tp_bps",
    "order_quantity",
    "filled_quantity",
    "fill_ratio",
    "slippage_bps",
    "available_volume",
    "spread_bps",
    "exit_reason",
    "latency_ms",
    "trade_id",
    "exchange",
    "target_price",
    "effective_price",
    "fee",
    "order_id",
    "liquidity",
    "arrival_mid",
    "mid_at_fill",
    "markout_1s_bps",
    "markout_5s_bps",
    "markout_30s_bps",
    "book_seq",
    "book_update_id",
    "book_age_ms",
    "depth_volume",
    "zone_id",
    "fill_model",
    "fill_reason",
    "calibration_version",
    "l2_source",
]


def event(**changes: Any) -> FillEvent:
    known: dict[str, Any] = {
        "timestamp": utc(0.0),
        "session_id": "S",
        "symbol": "BTC-USDT",
        "side": "buy",
        "entry_bps": 10.0,
        "tp_bps": 12.0,
        "order_quantity": 1.0,
        "filled_quantity": 0.0,
        "fill_ratio": 0.0,
        "slippage_bps": None,
        "available_volume": None,
        "spread_bps": None,
        "exit_reason": None,
        "latency_ms": None,
        "trade_id": "S-1",
        "exchange": "binance",
        "target_price": 100.0,
        "effective_price": None,
        "fee": 0.0,
        "order_id": "S-1-1",
        "liquidity": None,
        "arrival_mid": None,
        "mid_at_fill": None,
        "book_seq": None,
        "book_update_id": 1,
        "book_age_ms": None,
        "depth_volume": None,
        "zone_id": None,
        "fill_model": "book_walk",
        "fill_reason": FillReason.CONSUMED,
        "calibration_version": None,
        "l2_source": "redis",
    }
    return FillEvent(**known | changes)


@pytest.fixture
def files(tmp_path: Path) -> Any:
    made = RunRecorder(tmp_path, "S")
    yield made
    made.close()


def test_an_event_has_every_field_and_what_is_not_known_is_null(files: RunRecorder) -> None:
    files.write_fill(event())

    written = msgspec.json.decode(files.fills_path.read_bytes())
    assert list(written) == FIELDS
    assert written["effective_price"] is None
    assert written["timestamp"] == "1970-01-01T00:00:00.000000+00:00"


def test_a_line_can_be_read_as_soon_as_it_is_written(files: RunRecorder) -> None:
    for number in range(1, 4):
        files.write_fill(event(order_id=str(number)))

        assert len(files.fills_path.read_bytes().splitlines()) == number == files.fills
        assert files.fills_hash == hashlib.sha256(files.fills_path.read_bytes()).hexdigest()


def test_figures_replace_earlier_ones_as_a_whole(files: RunRecorder) -> None:
    files.write_kpi({"trades": 1})
    files.write_kpi({"trades": 2})

    assert msgspec.json.decode(files.kpi_path.read_bytes()) == {"trades": 2}
    assert not list(files.kpi_path.parent.glob("*.new"))


@pytest.mark.parametrize(("side", "expected"), [("buy", 100.0), ("sell", -100.0)])
def test_a_mark_out_is_positive_where_the_market_moved_our_way(side: Any, expected: float) -> None:
    markouts, seen = Markouts(), []
    markouts.expect("T", "O", "BTC-USDT", "binance", side, 100.0, filled_at=10.0)

    assert markouts.next_due == 11.0
    for now in (10.9, 11.0, 15.0, 40.0):
        markouts.look(now, lambda *_: 101.0, lambda *line: seen.append(line))

    assert [line[2:] for line in seen] == [
        (1, pytest.approx(expected)),
        (5, pytest.approx(expected)),
        (30, pytest.approx(expected)),
    ]
    assert markouts.next_due == float("inf")


def test_a_mark_out_that_nobody_looked_at_in_time_is_not_known() -> None:
    markouts, seen = Markouts(), []
    markouts.expect("T", "O", "BTC-USDT", "binance", "buy", 100.0, filled_at=0.0)

    markouts.look(1.0 + LATE + 0.01, lambda *_: 101.0, lambda *line: seen.append(line))

    assert seen == [("T", "O", 1, None)]


def test_a_gap_lasts_until_the_book_is_back() -> None:
    gap = Gap()
    for now, tradable in ((0.0, True), (1.0, False), (4.0, False), (5.0, True), (6.0, False)):
        gap.observe(now, tradable)

    assert (gap.count, gap.longest) == (2, 3.0)
