"""When a feeder confirms a book that does not change, and what it does when a duty beside its books fails."""

import pytest

from bookbus.feeders.bus.publish_script import Submission
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.feeder import Feeder, FeederSettings
from bookbus.feeders.markets import parse_selection
from bookbus.schemas.instruments import InstrumentRegistry
from tests.support.builders import book


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


@pytest.mark.parametrize(
    ("submitted_at", "received_at", "now", "is_confirmed"),
    [
        (100.0, 102.0, 102.2, True),
        (100.0, 101.2, 102.2, True),
        (100.0, 100.9, 102.0, False),  # a frame just after the last update says nothing about the second after it
        (100.0, 100.0, 102.0, False),
        (100.0, 0.0, 102.0, False),
        (100.0, 102.0, 103.5, False),
    ],
)
def test_a_quiet_book_is_confirmed_only_soon_after_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, submitted_at: float, received_at: float, now: float, is_confirmed: bool
) -> None:
    of = feeder()
    sent: list[Submission] = []
    monkeypatch.setattr(of.publisher, "submit", sent.append)
    monkeypatch.setattr(of.feed, "current", lambda _topic, _native: book())
    monkeypatch.setattr(of.feed, "is_current", lambda _topic, _native: True)
    monkeypatch.setattr(of.feed, "last_sign_of_life", lambda *_: received_at)
    of._submitted["book", "BTCUSDT"] = submitted_at

    of._repeat("book", "BTCUSDT", now)

    assert [(submission.kind, submission.book) for submission in sent] == [("again", book())] * is_confirmed


def test_a_quiet_book_that_is_no_longer_the_newest_is_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    of = feeder()
    sent: list[Submission] = []
    monkeypatch.setattr(of.publisher, "submit", sent.append)
    monkeypatch.setattr(of.feed, "current", lambda _topic, _native: book())
    monkeypatch.setattr(of.feed, "is_current", lambda _topic, _native: False)
    monkeypatch.setattr(of.feed, "last_sign_of_life", lambda *_: 102.0)

    of._repeat("book", "BTCUSDT", 102.0)

    assert sent == []
