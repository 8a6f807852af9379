"""Zones and tables: one rule of what is in a zone, and one clear error for whatever is no table."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.calibration.table import (
    CalibrationError,
    Expectation,
    TapeInfo,
    ZoneSpec,
    decode_table,
    load_table,
    parse_zones,
    save_table,
    zone_of,
)
from tests.support.calibrations import table, tape_info, zone

NEAR = ZoneSpec("Z1", 0.0, 1.0, 2.0, 5.0)
FAR = ZoneSpec("Z2", 1.0, 3.0, 2.0, 5.0)


@pytest.mark.parametrize(
    ("entry_bps", "tp_bps", "found"),
    [
        (0.0, 2.0, NEAR),
        (0.999, 4.999, NEAR),
        (1.0, 2.0, FAR),
        (3.0, 2.0, None),
        (1.0, 5.0, None),
        (0.5, 1.999, None),
        (float("nan"), 3.0, None),
    ],
)
def test_zones_hold_their_lower_ends_and_not_their_upper_ones(
    entry_bps: float, tp_bps: float, found: ZoneSpec | None
) -> None:
    assert zone_of([NEAR, FAR], entry_bps, tp_bps) is found


@given(entry_bps=st.floats(0, 4), tp_bps=st.floats(0, 6))
def test_the_order_of_zones_does_not_matter(entry_bps: float, tp_bps: float) -> None:
    assert zone_of([NEAR, FAR], entry_bps, tp_bps) is zone_of([FAR, NEAR], entry_bps, tp_bps)


def test_zones_are_written_as_their_ranges() -> None:
    assert parse_zones("0-1/2-5, 1-3/2-5") == (NEAR, FAR)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "'' is not a zone; write it like 0-1/2-5"),
        ("0-1", "'0-1' is not a zone"),
        ("1-0/2-5", r"entry range \[1, 0\)"),
        ("0-1/5-5", r"tp range \[5, 5\)"),
        ("0-nan/2-5", r"entry range \[0, nan\)"),
        ("0-2/2-5,1-3/4-6", r"the zones \[0-2/2-5\) and \[1-3/4-6\) overlap"),
    ],
)
def test_zones_that_make_no_sense_are_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_zones(text)


def test_a_table_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    save_table(table(zone("Z1"), zone("Z2", (5.0, 9.0), buy=None)), path)

    assert load_table(path) == table(zone("Z1"), zone("Z2", (5.0, 9.0), buy=None))
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_a_table_says_what_it_expects_of_a_decision() -> None:
    found = table(zone("Z1"), zone("Z2", (5.0, 9.0), sell=None))

    assert found.expect(4.9, 9.9) == Expectation("Z1", 0.5, 0.25, True, "")
    assert found.expect(5.0, 9.9) == Expectation("Z2", 0.5, None, False, "too few samples")
    assert found.expect(9.0, 9.9) == Expectation(
        None, None, None, False, "no zone holds entry 9 and take-profit 9.9 bps"
    )


def fields(**changes: Any) -> bytes:
    """The JSON of a good table with some of it replaced."""
    return msgspec.json.encode(msgspec.to_builtins(table()) | changes)


def zone_fields(**changes: Any) -> bytes:
    return fields(zones=[msgspec.to_builtins(zone()) | changes])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `created_at`"),
        (b"\xff\xfe", "malformed"),
        (b'{"zones":' + b"[" * 100_000, "(?i)recursion|object|expected"),
        (fields(version="2"), "version"),
        (fields(extra=1), "unknown field `extra`"),
        (fields(zones=[]), "there is no zone"),
        (fields(zones={}), "zones"),
        (fields(tapes=[]), "tapes"),
        (fields(total_events=-1), "total_events"),
        (fields(total_events=1, unmatched_events=2), "more unmatched events than events"),
        (fields(total_events="200"), "Expected `int`, got `str`"),
        (fields(default_buy_fill_ratio=1.5), "default_buy_fill_ratio"),
        (fields().replace(b'"seed":42', b'"seed":1e999'), "method.seed|out of range"),
        (fields().replace(b'"depth":20', b'"depth":NaN'), "malformed"),
        (fields(zones=[msgspec.to_builtins(zone())] * 2), "overlap"),
        (
            fields(zones=[msgspec.to_builtins(zone("Z", (n, n + 1.0))) for n in (0.0, 1.0)]),
            "two zones have the same name",
        ),
        (zone_fields(entry_min=5.0), r"entry range \[5, 5\)"),
        (zone_fields(buy_fill_ratio=1.01), r"zones\[0\]|\.zones\[\.\.\.\]\.buy_fill_ratio"),
        (zone_fields(buy_fill_ratio=None), "a ratio needs its interval"),
        (zone_fields(buy_interval=[0.6, 0.9]), r"does not contain the ratio 0.5"),
        (zone_fields(buy_interval=[0.1, 0.5, 0.9]), "length 2"),
        (zone_fields(usable=False), "a zone is usable if it has both ratios"),
        (zone_fields(samples=0, buy_samples=0), "a ratio of no samples"),
        (zone_fields(samples=7), "`samples` counts the entries"),
        (zone_fields(zone_id=""), "zone_id"),
    ],
)
def test_what_is_no_table_is_one_clear_error(text: bytes, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(text)

    with pytest.raises(CalibrationError, match=wrong) as raised:
        load_table(path)

    assert str(raised.value).startswith(f"{path}: not a calibration: ")
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    with pytest.raises(CalibrationError):
        decode_table(text)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"cannot read .*none\.json: No such file"):
        load_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(tape_info("copy", "a", symbols=("ETH-USDT",)), id="the same content under another name"),
        pytest.param(tape_info("cut", "b", first_us=1_500_000, last_us=1_600_000), id="a part of it"),
        pytest.param(tape_info("next", "b", first_us=1_999_999, last_us=3_000_000), id="one that overlaps"),
    ],
)
def test_a_table_is_not_validated_on_what_it_was_fitted_on(other: TapeInfo) -> None:
    with pytest.raises(CalibrationError, match=f"fitted on monday: {other.name} cannot validate it"):
        table().require_other_tape([tape_info("friday", "c", first_us=9_000_000, last_us=9_500_000), other])


def test_another_time_or_another_market_validates_a_table() -> None:
    table().require_other_tape(
        [
            tape_info("tuesday", "b", first_us=2_000_001, last_us=3_000_000),
            tape_info("other", "c", symbols=("ETH-USDT",)),
        ]
    )


def test_the_example_is_a_table_that_says_how_little_it_knows() -> None:
    example = load_table(Path(__file__).parents[5] / "consumers/paper/examples/binance_20240808_btc_eth.json")

    assert [zone.usable for zone in example.zones] == [True, False, False, False, False]
    assert example.unmatched_events == 0
    assert example.hold_out_buy.samples > 0
