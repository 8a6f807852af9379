"""A recording as tables, and the book at a time, compared with an independent program's books and a plain replay."""

import gzip
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app
from bookbus.consumers.captures import read_capture
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.recording import COLUMNS, Recording
from bookbus.schemas.capture import CaptureError, decode_frame
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade
from tests.support.captures import capture_path, golden_books

polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")

app = make_app()
NAME = "binance_20210405_10sym"


@pytest.fixture(scope="module")
def path() -> Path:
    return capture_path(NAME)


@pytest.fixture(scope="module")
def events(path: Path) -> list[tuple[float, OrderBookSnapshot | Trade]]:
    """Every book and trade of a plain replay, with the time of its frame."""
    return [(frame.time, event) for frame in read_capture(path) for event in frame.events]


def books_of(events: list[Any]) -> list[tuple[float, OrderBookSnapshot]]:
    return [(time, event) for time, event in events if isinstance(event, OrderBookSnapshot)]


@pytest.mark.parametrize("order", ["forward", "any"])
def test_book_at_a_time_is_that_of_the_replay(path: Path, events: list[Any], order: str) -> None:
    rng = random.Random(7)
    first, last = events[0][0], events[-1][0]
    times = [rng.uniform(first, last) for _ in range(10)]
    recording = Recording(path)
    symbols = sorted({book.symbol for _, book in books_of(events)})

    for time in sorted(times) if order == "forward" else times:
        symbol = rng.choice(symbols)
        before = [book for at, book in books_of(events) if at <= time and book.symbol == symbol]
        assert recording.book_at(symbol, time) == (before[-1] if before else None)


def test_book_at_a_time_is_that_of_an_independent_program(path: Path) -> None:
    with gzip.open(path) as file:
        times = [decode_frame(line).t for line in file]
    wanted = [
        (times[checkpoint.line], one.symbol, checkpoint)
        for one in golden_books(NAME).values()
        for checkpoint in one.checkpoints
        if times.count(times[checkpoint.line]) == 1
    ]
    recording = Recording(path)

    assert len(wanted) >= 10
    for time, native, checkpoint in sorted(wanted, key=lambda one: one[0]):
        book = recording.book_at(native, time)
        assert book is not None
        levels = len(checkpoint.bids), len(checkpoint.asks)
        assert (book.bids[: levels[0]], book.asks[: levels[1]]) == (checkpoint.bids, checkpoint.asks)


def test_book_is_found_by_every_name_of_its_symbol(path: Path, events: list[Any]) -> None:
    last = events[-1][0]
    (book,) = {one.symbol: one for _, one in books_of(events) if one.symbol == "ZIL-USDT"}.values()

    for name in ("ZIL-USDT", "ZIL", "zilusdt", "ZIL/USDT"):
        assert Recording(path).book_at(name, last) == book
    assert Recording(path).book_at("ZIL", 0.0) is None
    assert Recording(path).book_at("NOTHING", last) is None


@pytest.mark.parametrize("kind", ["quotes", "books", "trades"])
def test_tables_have_every_event(path: Path, events: list[Any], kind: str) -> None:
    recording = Recording(path)
    frame: Any = recording.to_polars(kind)  # type: ignore[arg-type]
    other: Any = recording.to_pandas(kind)  # type: ignore[arg-type]
    books = [book for _, book in books_of(events)]

    rows = {
        "quotes": len(books),
        "books": sum(len(book.bids) + len(book.asks) for book in books),
        "trades": len(events) - len(books),
    }
    assert frame.height == len(other) == rows[kind]
    assert tuple(frame.columns) == tuple(other.columns) == COLUMNS[kind]
    assert frame.schema["received_us"] == polars.Int64
    if frame.height:
        assert frame["symbol"].to_list() == other["symbol"].tolist()


def test_rows_are_the_prices_of_the_books(path: Path, events: list[Any]) -> None:
    frame = Recording(path).to_polars("quotes", "ZIL")
    books = [(at, book) for at, book in books_of(events) if book.symbol == "ZIL-USDT"]

    assert frame.height == len(books) > 0
    assert frame["bid"].to_list() == [book.best_bid() for _, book in books]
    assert frame["ask"].to_list() == [book.best_ask() for _, book in books]
    assert frame["received_us"].to_list() == [round(at * 1e6) for at, _ in books]
    assert frame["state"].to_list() == [book.state for _, book in books]


def test_levels_of_a_book_can_be_put_together_again(path: Path, events: list[Any]) -> None:
    frame = Recording(path, depth=5).to_polars("books", "ZIL")
    _, book = next((at, one) for at, one in reversed(books_of(events)) if one.symbol == "ZIL-USDT")

    last = frame.filter(polars.col("update_id") == book.update_id)
    for side, levels in (("bid", book.bids), ("ask", book.asks)):
        found = last.filter(polars.col("side") == side).sort("level").tail(5)
        assert tuple(zip(found["price"], found["quantity"], strict=True)) == levels[:5]


@pytest.mark.parametrize(("table", "to"), [("quotes", "parquet"), ("books", "parquet"), ("quotes", "csv")])
def test_export_writes_what_others_read(path: Path, tmp_path: Path, table: str, to: str) -> None:
    out = tmp_path / f"x.{to}"
    ran = CliRunner().invoke(app, ["export", str(path), "--table", table, "--to", to, "--out", str(out)])

    assert ran.exit_code == 0, ran.output
    read = polars.read_parquet(out) if to == "parquet" else polars.read_csv(out)
    assert ran.output == f"{out}: {read.height} rows\n"
    assert (
        read["bid" if table == "quotes" else "price"].to_list()
        == Recording(path).columns(table)[  # type: ignore[arg-type]
            "bid" if table == "quotes" else "price"
        ]
    )
    assert list(tmp_path.iterdir()) == [out]


def test_export_of_what_is_no_recording_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.jsonl").write_text("nothing\n")

    wrong = CliRunner().invoke(app, ["export", str(tmp_path / "no.jsonl")])
    missing = CliRunner().invoke(app, ["export", str(tmp_path / "none.jsonl")])

    assert (wrong.exit_code, missing.exit_code) == (1, 1)
    assert wrong.stderr.startswith("error: ")
    assert missing.stderr.startswith("error: ")
    assert len(wrong.stderr.splitlines()) == len(missing.stderr.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["no.jsonl"]
    with pytest.raises(CaptureError):
        Recording(tmp_path / "no.jsonl").book_at("BTC", 1.0)


def test_provider_is_a_table_of_its_books() -> None:
    with MockMarketDataProvider(["BTC-USDT", "ETH-USDT"]) as provider:
        provider.wait_until_live()
        frame, other = provider.to_polars(), provider.to_pandas()

    assert frame["symbol"].to_list() == other["symbol"].tolist() == ["BTC-USDT", "ETH-USDT"]
    assert set(frame["status"]) == {"live"}
    assert (frame["bid"] < frame["ask"]).all()
    assert frame.schema["bid"] == polars.Float64
