"""`python -m feeders replay`: the final books in Redis, output and exit code."""

import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import redis

from bookbus.feeders.recording import Recorder
from bookbus.schemas import wire
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.captures import capture_path, golden_books

WS_URL = "wss://stream.binance.com:9443/stream"


def write(path: Path, *natives: str, answered: bool = True, venue: str = "binance") -> Path:
    """A recording of a snapshot and two updates of each symbol; the last update is number 12."""
    recorder = Recorder(path, venue)
    for native in natives:
        _record_update(recorder, native, 11, "3.0")
        if answered:
            book = {"lastUpdateId": 10, "bids": [["99.0", "1.0"], ["98.0", "2.0"]], "asks": [["101.0", "1.0"]]}
            url = f"https://api.binance.com/api/v3/depth?symbol={native}&limit=100"
            recorder.on_answer(url, msgspec.json.encode(book))
        _record_update(recorder, native, 12, "4.0")
    recorder.close()
    return path


def _record_update(recorder: Recorder, native: str, number: int, quantity: str) -> None:
    update = {"e": "depthUpdate", "E": 1_700_000_000_000 + number, "s": native, "U": number, "u": number}
    data = update | {"b": [["99.0", quantity]], "a": []}
    recorder.on_frame(WS_URL, msgspec.json.encode({"stream": f"{native.lower()}@depth@100ms", "data": data}))


def replay(path: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "feeders", "replay", str(path), "--redis", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def stored(url: str) -> dict[str, OrderBookSnapshot]:
    """Every book on the server by native symbol."""
    with redis.Redis.from_url(url) as client:
        blobs = [client.hget(key, "book") for key in client.scan_iter("md:book:*")]
    books = [wire.decode(blob) for blob in blobs if isinstance(blob, bytes)]
    return {book.native: book for book in books}


def test_a_whole_recording_ends_with_its_last_books_on_the_bus(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl.gz", "BTCUSDT", "ETHUSDT"), redis_url)

    assert done.returncode == 0, done.stderr
    books = stored(redis_url)
    assert set(books) == {"BTCUSDT", "ETHUSDT"}
    assert {(book.state, book.update_id) for book in books.values()} == {("live", 12)}
    assert {book.bids for book in books.values()} == {((99.0, 4.0), (98.0, 2.0))}


def test_a_recording_without_its_snapshot_ends_with_no_book_and_says_why(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl", "BTCUSDT", answered=False), redis_url)

    assert done.returncode == 1
    assert "the recording has no snapshot that their updates continue" in done.stderr
    assert stored(redis_url) == {}


def test_a_snapshot_recorded_before_the_first_update_of_a_quiet_symbol_counts(tmp_path: Path, redis_url: str) -> None:
    path = write(tmp_path / "c.jsonl", "BTCUSDT")
    first, answer, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(answer + first + second)

    done = replay(path, redis_url)

    assert done.returncode == 0, done.stderr
    assert stored(redis_url)["BTCUSDT"].update_id == 12


def test_a_recording_that_is_cut_off_is_replayed_and_reported(tmp_path: Path, redis_url: str) -> None:
    path = write(tmp_path / "c.jsonl", "BTCUSDT")
    path.write_bytes(path.read_bytes()[:-20])

    done = replay(path, redis_url)

    assert done.returncode == 0, done.stderr
    assert "the recording is truncated" in done.stderr
    assert stored(redis_url)["BTCUSDT"].update_id == 11


def test_a_recording_with_a_shallow_snapshot_fails_and_prints_the_windows_left(tmp_path: Path, redis_url: str) -> None:
    path = write(tmp_path / "c.jsonl", "BTCUSDT")
    path.write_text(path.read_text().replace("limit=100", "limit=1"))

    done = replay(path, redis_url)

    assert done.returncode == 1
    assert "windows_left: published levels reached 1 times beyond those of a snapshot" in done.stderr
    assert "error: 1 books lacked levels at times (BTC-USDT)" in done.stderr
    assert all(book.state != "live" for book in stored(redis_url).values())


def test_a_symbol_that_may_be_several_is_left_out_and_named(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl", "BTCUSDT", "BTCPLN"), redis_url)

    assert done.returncode == 1
    assert "error: 1 symbols are left out, which no list of instruments in the recording has: 'BTCPLN'" in done.stderr
    assert set(stored(redis_url)) == {"BTCUSDT"}


def test_a_name_that_the_user_gives_is_that_of_the_book(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl", "BTCUSDT", "BTCPLN"), redis_url, "--symbols", "BTC-PLN")

    assert done.returncode == 0, done.stderr
    assert {book.symbol for book in stored(redis_url).values()} == {"BTC-PLN"}


def test_only_the_symbols_asked_for_are_replayed(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl", "BTCUSDT", "ETHUSDT"), redis_url, "--symbols", "ETH")

    assert done.returncode == 0, done.stderr
    assert set(stored(redis_url)) == {"ETHUSDT"}


def test_a_recording_of_two_venues_is_an_error(tmp_path: Path, redis_url: str) -> None:
    first = write(tmp_path / "a.jsonl", "BTCUSDT")
    second = write(tmp_path / "b.jsonl", "BTCUSDT", venue="upbit")
    both = tmp_path / "both.jsonl"
    both.write_bytes(first.read_bytes() + second.read_bytes())

    done = replay(both, redis_url)

    assert done.returncode == 1
    assert "holds both binance and upbit: record them into two files" in done.stderr


@pytest.mark.parametrize("name", ["binance_20240808_btc_eth_long", "binance_20210405_10sym"])
def test_a_real_recording_ends_with_the_books_of_an_independent_program(redis_url: str, name: str) -> None:
    path, golden = capture_path(name), golden_books(name)

    done = replay(path, redis_url)

    assert done.returncode == 0, done.stderr
    books = stored(redis_url)
    assert set(books) == set(golden)
    for native, final in golden.items():
        book = books[native]
        assert (book.state, book.update_id, book.bids, book.asks) == (
            "live",
            final.last_update_id,
            final.bids,
            final.asks,
        ), native


def test_a_prefix_with_another_feeder_is_refused_in_one_line(tmp_path: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("md:network:binance", mapping={"network": "live", "source": "", "feeder": "live-one", "count": 1})
        ended = threading.Event()

        def claim() -> None:
            while not ended.wait(0.1):
                client.hincrby("md:network:binance", "count", 1)

        claims = threading.Thread(target=claim)
        claims.start()
        done = replay(write(tmp_path / "c.jsonl", "BTCUSDT"), redis_url)
        ended.set()
        claims.join()

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: binance books under the prefix 'md' are of network live, which feeder live-one publ")
    assert stored(redis_url) == {}


def record_trades_and_quotes(path: Path) -> Path:
    """A book of BTC with two updates, three trades and two quotes of it, and one trade of ETH."""
    write(path, "BTCUSDT")
    frames = path.read_bytes()
    path.unlink()
    recorder = Recorder(path, "binance")
    for number, native in enumerate(["BTCUSDT", "BTCUSDT", "ETHUSDT", "BTCUSDT"], 1):
        data = {"e": "trade", "E": 1_700_000_000_000, "s": native, "t": number, "p": "100", "q": "1"}
        more = {"T": 1_700_000_000_000 + number, "m": False, "M": True}
        recorder.on_frame(WS_URL, msgspec.json.encode({"stream": f"{native.lower()}@trade", "data": data | more}))
    for number in (5, 6):
        quote = {"u": number, "s": "BTCUSDT", "b": "99.0", "B": f"{number}", "a": "101.0", "A": "1"}
        recorder.on_frame(WS_URL, msgspec.json.encode({"stream": "btcusdt@bookTicker", "data": quote}))
    recorder.close()
    path.write_bytes(frames + path.read_bytes())
    return path


@pytest.mark.parametrize(
    ("topics", "counts", "rows"),
    [
        ("trades", "4 trades", {("BTC-USDT", "trades", "3 trades"), ("ETH-USDT", "trades", "1 trades")}),
        ("quote", "2 quotes", {("BTC-USDT", "quote", "live")}),
        ("book", "2 books", {("BTC-USDT", "book", "live")}),
        ("book,quote", "2 books, 2 quotes", {("BTC-USDT", "book", "live"), ("BTC-USDT", "quote", "live")}),
        (
            "book,trades",
            "2 books, 4 trades",
            {("BTC-USDT", "book", "live"), ("BTC-USDT", "trades", "3 trades"), ("ETH-USDT", "trades", "1 trades")},
        ),
    ],
)
def test_every_topic_is_shown_and_counted_as_what_it_is(
    tmp_path: Path, redis_url: str, topics: str, counts: str, rows: set[tuple[str, str, str]]
) -> None:
    done = replay(record_trades_and_quotes(tmp_path / "c.jsonl"), redis_url, "--topics", topics)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f" s, {counts} published" in done.stdout
    shown = {
        tuple(cell.strip() for cell in line.split("│")[1:4]) for line in done.stdout.splitlines() if "-USDT" in line
    }
    assert shown == rows


def test_trades_that_are_not_there_are_an_error(tmp_path: Path, redis_url: str) -> None:
    done = replay(write(tmp_path / "c.jsonl", "BTCUSDT"), redis_url, "--topics", "trades")

    assert (done.returncode, done.stderr) == (1, "error: the recording has no trades of these symbols\n")
