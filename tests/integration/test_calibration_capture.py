"""The shipped example table is what its capture gives."""

from pathlib import Path

import msgspec

from bookbus.consumers.paper.calibration.fit import DEFAULT_ZONES, calibrate
from bookbus.consumers.paper.calibration.table import Method, load_table, parse_zones
from bookbus.consumers.paper.calibration.tape import capture_tape
from tests.support.captures import capture_path

EXAMPLE = Path(__file__).parents[2] / "consumers/paper/examples/binance_20240808_btc_eth.json"


def test_the_example_is_the_calibration_of_its_capture() -> None:
    example = load_table(EXAMPLE)
    method = Method(
        horizon_seconds=example.method.horizon_seconds,
        latency_ms=50.0,
        order_notional=100.0,
        depth=200,
        fit_share=0.7,
        minimum_samples=30,
        seed=42,
    )

    tape = capture_tape(capture_path("binance_20240808_btc_eth_long"), depth=method.depth)
    table = calibrate([tape], parse_zones(DEFAULT_ZONES), method, example.created_at)

    assert msgspec.json.encode(table) == msgspec.json.encode(example)
