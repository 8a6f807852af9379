"""`python -m feeders record`: what was recorded of an exchange replays to the books that exchange had."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bookbus.feeders.replay import Replay
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.bybit.exchange import BybitSimulator
from bookbus.feeders.simulator.upbit.exchange import UpbitSimulator
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

Simulator = BinanceSimulator | UpbitSimulator | BybitSimulator

VENUES: dict[str, Callable[[], Simulator]] = {
    "binance": lambda: BinanceSimulator(symbols=("BTCUSDT", "ETHUSDT"), seed=51),
    "upbit": lambda: UpbitSimulator(symbols=("KRW-BTC", "KRW-ETH"), seed=52),
    "bybit": lambda: BybitSimulator(symbols=("BTCUSDT", "ETHUSDT"), seed=53),
}


async def record(ws_url: str, rest_url: str, *arguments: str) -> tuple[int, str]:
    """Exit code of the command and what it said."""
    command = (sys.executable, "-m", "feeders", "record", "--ws-url", ws_url, "--rest-url", rest_url)
    process = await asyncio.create_subprocess_exec(*command, *arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("venue", VENUES)
async def test_a_recording_replays_to_the_exchanges_books(venue: str, tmp_path: Path) -> None:
    out = tmp_path / "recording.jsonl.gz"
    books: list[OrderBookSnapshot] = []
    trades: list[Trade] = []

    async with VENUES[venue]() as exchange:
        arguments = ("--exchange", venue, "--symbols", ",".join(exchange.symbols), "--seconds", "3", "--out", str(out))
        code, said = await record(exchange.ws_url, exchange.rest_url, *arguments)
        assert code == 0, said
        replay = Replay(out, FeedOptions())
        for _, event in (pair for frame in replay for pair in frame.events):
            if isinstance(event, Trade):
                trades.append(event)
            else:
                books.append(event)
        result = replay.result()

        assert result.complete, said
        assert set(result.states.values()) == {"live"}
        live = [book for book in books if book.state == "live"]
        true = [exchange.truth(book.native, book.update_id) for book in live]
        assert len(live) > 50
        assert all(truth is not None for truth in true)
        assert [(book.bids, book.asks) for book in live] == true


async def test_nothing_received_leaves_no_file_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "recording.jsonl"
    async with VENUES["binance"]() as exchange:
        arguments = ("--symbols", "BTC", "--seconds", "0.5", "--out", str(out))
        code, said = await record("ws://127.0.0.1:1", exchange.rest_url, *arguments)

    assert code != 0
    assert f"no frame was received; {out} was removed" in said
    assert not out.exists()
