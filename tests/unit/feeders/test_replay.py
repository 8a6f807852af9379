"""The names of symbols in a recording: its own list, those that a user gave, and what is refused without them."""

import random
from pathlib import Path

import msgspec
import pytest

from bookbus.feeders.errors import ReplayError
from bookbus.feeders.recording import CaptureFile, Recorder
from bookbus.feeders.replay import Replay, ReplayResult
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.instruments import Instrument, SymbolError
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

WS_URL = "wss://stream.binance.com:9443/stream"


def listed(base: str, quote: str) -> Instrument:
    return Instrument("binance", base, quote, f"{base}{quote}")


def record(path: Path, *natives: str, instruments: list[Instrument] | None = None, raw: str = "") -> Path:
    recorder = Recorder(path, "binance")
    if instruments is not None:
        recorder.on_instruments(instruments)
    for native in natives:
        send_book(recorder, native)
    recorder.close()
    return path


def send_book(recorder: Recorder, native: str) -> None:
    book = {"lastUpdateId": 10, "bids": [["99.0", "1.0"]], "asks": [["101.0", "1.0"]]}
    url = f"https://api.binance.com/api/v3/depth?symbol={native}&limit=1000"
    recorder.on_answer(url, msgspec.json.encode(book))
    update = {"e": "depthUpdate", "E": 1_700_000_000_000, "s": native, "U": 11, "u": 11, "b": [["99.0", "2"]], "a": []}
    recorder.on_frame(WS_URL, msgspec.json.encode({"stream": f"{native.lower()}@depth@100ms", "data": update}))
    trade = {"e": "trade", "E": 1_700_000_000_000, "s": native, "t": 1, "p": "99.0", "q": "1", "T": 1_700_000_000_000}
    data = trade | {"m": True, "M": True}
    recorder.on_frame(WS_URL, msgspec.json.encode({"stream": f"{native.lower()}@trade", "data": data}))


def replay(path: Path, *symbols: str) -> tuple[ReplayResult, set[str]]:
    """The result, and every standard symbol under which a book or trade came."""
    replayed = Replay(path, FeedOptions(topics=frozenset({"book", "trades"})), symbols)
    names = {event.symbol for frame in replayed for _, event in frame.events}
    return replayed.result(), names


@pytest.mark.parametrize(
    ("base", "quote"),
    [
        ("BTC", "PLN"),
        ("BTC", "USD1"),
        ("XRP", "RLUSD"),
        ("USDT", "PLN"),
        ("USD1", "USDT"),
        ("ETHBTC", "U"),
        ("A", "BUSDT"),
    ],
)
def test_the_list_in_a_recording_gives_the_names(tmp_path: Path, base: str, quote: str) -> None:
    path = record(tmp_path / "c.jsonl", f"{base}{quote}", instruments=[listed(base, quote)])

    result, names = replay(path)

    assert names == {f"{base}-{quote}"}
    assert result.states == {(f"{base}-{quote}", "book"): "live"}
    assert (result.trades, result.unnamed, result.complete) == ({f"{base}-{quote}": 1}, {}, True)


def test_the_list_is_no_frame_of_the_exchange(tmp_path: Path) -> None:
    path = record(tmp_path / "c.jsonl.gz", "BTCPLN", instruments=[listed("BTC", "PLN")])
    capture = CaptureFile(path)

    kinds = [frame.kind for frame in capture]

    assert kinds == ["instruments", "http", "ws", "ws"]
    assert (capture.frames, capture.bad_lines) == (3, 0)


def test_symbols_that_were_added_later_have_their_names_in_a_list_of_their_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "c.jsonl", "binance")
    recorder.on_instruments([listed("BTC", "PLN")])
    send_book(recorder, "BTCPLN")
    recorder.on_instruments([listed("XRP", "RLUSD"), listed("BTCP", "LN")])
    send_book(recorder, "XRPRLUSD")
    send_book(recorder, "BTCPLN")
    recorder.close()

    result, names = replay(recorder.path)

    assert names == {"BTC-PLN", "XRP-RLUSD"}  # a book never changes its name
    assert result.complete


@pytest.mark.parametrize("native", ["BTCPLN", "BTCUSD1", "XRPRLUSD", "USDTPLN", "ABUSD"])
def test_without_a_list_a_symbol_that_may_be_several_is_left_out_and_named_once(
    tmp_path: Path, native: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = record(tmp_path / "c.jsonl", "BTCUSDT", native, native)

    result, names = replay(path)

    assert names == {"BTC-USDT"}
    assert result.states == {("BTC-USDT", "book"): "live"}
    assert list(result.unnamed) == [native]
    assert "list of instruments" in result.unnamed[native]
    assert not result.complete
    assert sum(f"{native!r}" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("native", "name"), [("BTCPLN", "BTC-PLN"), ("XRPRLUSD", "xrp/rlusd"), ("USDTPLN", "USDT-PLN")]
)
def test_without_a_list_the_name_that_the_user_gave_is_that_of_the_book(tmp_path: Path, native: str, name: str) -> None:
    path = record(tmp_path / "c.jsonl", "BTCUSDT", native)

    result, names = replay(path, name)

    assert names == {name.upper().replace("/", "-")}
    assert result.complete


def test_a_recording_without_a_list_is_read_by_the_spelling_of_its_symbols(tmp_path: Path) -> None:
    result, names = replay(record(tmp_path / "c.jsonl", "BTCUSDT", "ETHBTC", "XRPFDUSD", "WBTCBTC"))

    assert names == {"BTC-USDT", "ETH-BTC", "XRP-FDUSD", "WBTC-BTC"}
    assert result.complete


def test_names_that_the_recording_contradicts_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "c.jsonl", "BTCPLN", instruments=[listed("BTC", "PLN")])

    with pytest.raises(SymbolError, match="BTCPLN is the name of both BTC-PLN and BTCP-LN"):
        replay(path, "BTCP-LN")


def test_entries_of_the_list_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    path = record(tmp_path / "c.jsonl", "BTCPLN", instruments=[listed("BTC", "PLN")])
    text = path.read_text()
    path.write_text(text.replace('"raw":"[', '"raw":"[{\\"base\\":null},7,'))

    assert replay(path)[1] == {"BTC-PLN"}

    path.write_text(text.replace('"raw":"[', '"raw":"nonsense ['))
    with pytest.raises(ReplayError, match="not a list of instruments"):
        replay(path)


def test_the_books_of_a_recording_have_one_name_on_every_frame(tmp_path: Path) -> None:
    path = record(tmp_path / "c.jsonl", "BTCPLN", "BTCPLN", instruments=[listed("BTC", "PLN")])

    books = [
        event
        for frame in Replay(path, FeedOptions())
        for _, event in frame.events
        if isinstance(event, OrderBookSnapshot)
    ]

    assert {(book.symbol, book.native) for book in books} == {("BTC-PLN", "BTCPLN")}


# Snapshots with few levels.


class Walk:
    """A book of 150 levels a side whose touch wanders, recorded by updates and one snapshot."""

    def __init__(self, path: Path, seed: int, levels: int, *, later: int | None = None) -> None:
        """`later` is the size of a second snapshot, half way through."""
        self.truth: dict[int, tuple[Levels, Levels]] = {}
        self._random = random.Random(seed)
        self._mid = 1_000
        self._sides: tuple[dict[int, int], dict[int, int]] = (
            dict.fromkeys(range(850, 1000), 1),
            dict.fromkeys(range(1001, 1151), 1),
        )
        self._remember(100)
        recorder = Recorder(path, "binance")
        recorder.on_answer(f"https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit={levels}", self._answer(levels))
        for update_id in range(101, 401):
            recorder.on_frame(WS_URL, self._update(update_id))
            if later is not None and update_id == 250:
                url = f"https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit={later}"
                recorder.on_answer(url, self._answer(later))
        recorder.close()

    def _update(self, update_id: int) -> bytes:
        """The mid moves by up to three: levels on the wrong side go, and levels up to it come."""
        self._mid += self._random.randint(-3, 3)
        before = [dict(side) for side in self._sides]
        for sign, side in zip((1, -1), self._sides, strict=True):
            for price in [price for price in side if sign * price >= sign * self._mid]:
                del side[price]
            for offset in (1, 2, 3, 4, self._random.randint(5, 200)):
                if self._random.random() < 0.5:
                    side[self._mid - sign * offset] = self._random.randint(1, 9)
        changes = []
        for old, side in zip(before, self._sides, strict=True):
            prices = [price for price in {**old, **side} if old.get(price) != side.get(price)]
            changes.append([[f"{price}.0", f"{side.get(price, 0)}.0"] for price in prices])
        self._remember(update_id)
        data = {"e": "depthUpdate", "E": 1_700_000_000_000, "s": "BTCUSDT", "U": update_id, "u": update_id}
        sides = {"b": changes[0], "a": changes[1]}
        return msgspec.json.encode({"stream": "btcusdt@depth@100ms", "data": data | sides})

    def _answer(self, levels: int) -> bytes:
        last_id = max(self.truth)
        bids, asks = ([[f"{p}", f"{q}"] for p, q in side[:levels]] for side in self.truth[last_id])
        return msgspec.json.encode({"lastUpdateId": last_id, "bids": bids, "asks": asks})

    def _remember(self, update_id: int) -> None:
        bids, asks = self._sides
        self.truth[update_id] = (
            tuple((float(price), float(bids[price])) for price in sorted(bids, reverse=True)),
            tuple((float(price), float(asks[price])) for price in sorted(asks)),
        )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("levels", [5, 10, 20, 50, 100])
@pytest.mark.parametrize("later", [None, 20, 1_000])
@pytest.mark.parametrize("depth", [1, 20])
def test_no_live_book_of_a_shallow_recording_lacks_a_level(
    tmp_path: Path, seed: int, levels: int, later: int | None, depth: int
) -> None:
    walk = Walk(tmp_path / "c.jsonl", seed, levels, later=later)
    replayed = Replay(tmp_path / "c.jsonl", FeedOptions(depth=depth))

    books = [event for frame in replayed for _, event in frame.events if isinstance(event, OrderBookSnapshot)]
    result = replayed.result()

    live = [book for book in books if book.state == "live"]
    for book in live:
        bids, asks = walk.truth[book.update_id]
        assert (book.bids, book.asks) == (bids[:depth], asks[:depth])
    assert bool(result.shallow) == bool(result.counters.windows_left)
    assert result.complete == (not result.shallow and result.states == {("BTC-USDT", "book"): "live"})
    assert live or levels < depth
    if later == 1_000:
        assert result.states == {("BTC-USDT", "book"): "live"}


@pytest.mark.parametrize("levels", [5, 10])
def test_a_snapshot_of_fewer_levels_than_the_depth_gives_no_live_book(tmp_path: Path, levels: int) -> None:
    Walk(tmp_path / "c.jsonl", 0, levels)

    result, _ = replay(tmp_path / "c.jsonl")

    assert result.shallow == ["BTC-USDT"]
    assert (result.counters.windows_left, result.complete) == (1, False)


def test_a_whole_snapshot_of_a_small_market_is_complete(tmp_path: Path) -> None:
    Walk(tmp_path / "c.jsonl", 0, 1_000)

    result, _ = replay(tmp_path / "c.jsonl")

    assert (result.shallow, result.counters.windows_left, result.complete) == ([], 0, True)
