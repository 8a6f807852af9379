"""The shipped example table is what its capture gives."""

from pathlib import Path

import msgspec

from bookbus.consumers.paper.calibration.fit import CalibrationSettings, calibrate
from bookbus.consumers.paper.calibration.table import load_table
from bookbus.consumers.paper.calibration.tape import capture_tape
from tests.support.captures import capture_path

EXAMPLE = Path(__file__).parents[2] / "consumers/paper/examples/binance_20240808_btc_eth.json"


def test_the_example_is_the_calibration_of_its_capture() -> None:
    example = load_table(EXAMPLE)
    settings = CalibrationSettings(horizon=example.method.horizon_seconds)

    tape = capture_tape(capture_path("binance_20240808_btc_eth_long"), depth=settings.depth)

    assert msgspec.json.encode(calibrate([tape], settings, example.created_at)) == msgspec.json.encode(example)
