"""Latencies by their text."""

from pathlib import Path

import pytest

from bookbus.consumers.paper.latency import LEGS, parse_latency


def drawn(text: str, exchange: str = "binance", seed: int = 1) -> list[int]:
    latency = parse_latency(text, seed, lambda exchange: {"binance": 7_000, "upbit": -3}[exchange])
    return [latency.draw(exchange, leg) for leg in LEGS]


@pytest.mark.parametrize(
    ("text", "exchange", "expected"),
    [
        ("", "binance", [50_000, 50_000, 50_000]),
        ("0", "binance", [0, 0, 0]),
        ("80, response=2.5", "binance", [80_000, 80_000, 2_500]),
        ("80,upbit:cancel=10", "upbit", [80_000, 10_000, 80_000]),
        ("80,upbit:cancel=10", "binance", [80_000, 80_000, 80_000]),
        ("entry=feed", "binance", [7_000, 50_000, 50_000]),
        ("entry=feed", "upbit", [0, 50_000, 50_000]),
    ],
)
def test_each_way_has_its_latency(text: str, exchange: str, expected: list[int]) -> None:
    assert drawn(text, exchange) == expected


def test_measured_latencies_are_drawn_alike_for_the_same_seed(tmp_path: Path) -> None:
    path = tmp_path / "measured"
    path.write_text("1\n2.5\n40\n")

    def many(seed: int) -> list[int]:
        latency = parse_latency(f"entry={path}", seed, lambda _: 0)
        return [latency.draw("binance", "entry") for _ in range(50)]

    assert set(many(1)) == {1_000, 2_500, 40_000}
    assert many(1) == many(1) != many(2)


@pytest.mark.parametrize("text", ["entry", "way=3", "entry=-1", "nan", "no_file", "entry=60001"])
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--latency"):
        parse_latency(text, 1, lambda _: 0)


@pytest.mark.parametrize("content", ["", "1\nfast\n"])
def test_file_without_numbers_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "measured"
    path.write_text(content)

    with pytest.raises(ValueError, match="--latency"):
        parse_latency(str(path), 1, lambda _: 0)
