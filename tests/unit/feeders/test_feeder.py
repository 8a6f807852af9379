"""What a feeder does when a duty beside its books fails."""

import pytest

from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.feeder import Feeder, FeederSettings
from bookbus.feeders.markets import parse_selection
from bookbus.schemas.instruments import InstrumentRegistry


def feeder() -> Feeder:
    settings = FeederSettings(exchange="binance", selection=parse_selection(["BTC"]), redis_url="redis://127.0.0.1:1/0")
    registry = InstrumentRegistry(VENUE.exchange, offline=True)
    return Feeder(settings, VENUE, registry, [registry.resolve("BTC")])


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(24, "Too many open files"), "[Errno 24] Too many open files"),
        (MemoryError(), "MemoryError"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
async def test_a_duty_that_fails_is_contained_and_in_the_heartbeat(
    caplog: pytest.LogCaptureFixture, error: Exception, cause: str
) -> None:
    of = feeder()

    async def duty() -> None:
        raise error

    await of.contain("listings", duty())

    assert of.failed == {"listings": cause}
    assert of._beat().failed == {"listings": cause}
    assert len(caplog.records) == 1
    assert bool(caplog.records[0].exc_info) is isinstance(error, KeyError)


async def test_a_duty_that_ends_well_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    of = feeder()

    async def duty() -> None:
        pass

    await of.contain("listings", duty())

    assert (of.failed, caplog.records) == ({}, [])
