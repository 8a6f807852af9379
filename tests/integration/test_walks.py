"""The walks of the architecture page: what a real frame and a real order call, in this order."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from bookbus.consumers.paper.settings import RunSettings
from bookbus.feeders.feeder import Feeder, FeederSettings
from bookbus.feeders.markets import parse_selection
from bookbus.feeders.venue import venue_of
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry, guess_instrument
from tests.support.documents import ROOT, Step, walks
from tests.support.paper_world import World
from tests.support.simulated_exchange import exchange
from tests.support.waiting import await_for

Call = tuple[str, str]

FRAME, ORDER = walks()


def calls_of(steps: list[Step]) -> list[Call]:
    return [(step.file, function) for step in steps for function in step.functions]


@cache
def name_in_repository(path: str) -> str:
    resolved = Path(path).resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else ""


@contextmanager
def traced(steps: list[Step]) -> Iterator[list[Call]]:
    """The calls of the functions of a walk, as they happen in this thread."""
    wanted, seen = set(calls_of(steps)), list[Call]()

    def see(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            call = name_in_repository(frame.f_code.co_filename), frame.f_code.co_qualname
            if call in wanted:
                seen.append(call)

    sys.setprofile(see)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def holds(seen: list[Call], calls: list[Call]) -> bool:
    """Whether these calls follow each other directly somewhere."""
    return any(seen[start : start + len(calls)] == calls for start in range(len(seen) - len(calls) + 1))


@pytest.mark.parametrize("steps", [FRAME, ORDER], ids=["frame", "order"])
def test_no_step_of_a_walk_returns_to_a_module(steps: list[Step]) -> None:
    files = [step.file for step in steps]

    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert len(set(files)) == len(files)


async def test_frame_takes_the_documented_walk_from_the_socket_to_redis(redis_url: str) -> None:
    venue = venue_of("binance")
    instrument = guess_instrument(EXCHANGES["binance"], "BTCUSDT")
    async with exchange("BTCUSDT") as simulated:
        settings = FeederSettings(
            exchange="binance",
            selection=parse_selection(["BTC"]),
            redis_url=redis_url,
            ws_url=simulated.ws_url,
            rest_url=simulated.rest_url,
            audit_interval=0.0,
        )
        registry = InstrumentRegistry(EXCHANGES["binance"], [instrument])
        feeder = Feeder(settings, venue, registry, [instrument])
        running = asyncio.create_task(feeder.run())
        try:
            await await_for(lambda: feeder.publisher.counters.accepted > 0, what="a book on Redis")
            with traced(FRAME) as seen:
                await await_for(lambda: holds(seen, calls_of(FRAME)), what="a frame on its way")
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    assert FRAME[-1] == Step("feeders/bus/publish.lua", ())


def test_order_takes_the_documented_walk_from_decision_to_fill_event(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(100.0, 101.0)

    with traced(ORDER) as seen:
        world.run(RunSettings(source="redis", duration=5.0, trade_interval=10.0, order_quantity=0.5))

    assert holds(seen, calls_of(ORDER))
    assert world.fills()[0]["side"] == "buy"
