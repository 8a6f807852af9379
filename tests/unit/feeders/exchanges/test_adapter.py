"""One connection of a feed: when it is ready, what it asks for again, when it is to be replaced."""

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial

import pytest

from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Refused, ResubscribeNeeded, Topic
from bookbus.feeders.errors import WebSocketTimeoutError
from bookbus.feeders.exchanges.adapter import FeedAdapter
from bookbus.feeders.feed import Feed
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import ControlMessage, FeedOptions
from bookbus.schemas.instruments import guess_instrument
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.fake_venue import FakeBookSet, FakeSnapshots, FakeVenue, updated


class World:
    """An adapter without a socket; messages are given to it, and what it would send is kept."""

    def __init__(self, *, lifetime: float | None = None, topics: Iterable[Topic] = ("book",), slot: int = 0) -> None:
        self.book_set = FakeBookSet(("BTCUSDT", "ETHUSDT"))
        self.books: list[OrderBookSnapshot] = []
        self.frames: list[tuple[str, bytes]] = []
        self.snapshots = FakeSnapshots()
        sent: list[str] = []
        self.sent = sent
        self.now = 0.0
        venue = FakeVenue()
        venue.lifetime = lifetime

        class Adapter(FeedAdapter):
            def send_soon(self, texts: Sequence[str]) -> None:
                sent.extend(texts)

        feed = Feed(
            exchange="binance",
            books=self.book_set,
            options=FeedOptions(topics=frozenset(topics)),
            instrument_of=partial(guess_instrument, venue.exchange),
            on_snapshot=lambda book, _: self.books.append(book),
            on_trade=print,
            snapshots=self.snapshots,
        )
        self.adapter = Adapter(
            venue,
            feed,
            venue.ws_url,
            StallDetector(lambda gap: self.adapter.discard(gap), lambda: self.now),
            slot=slot,
            on_frame=lambda url, frame: self.frames.append((url, frame)),
        )

    def receive(self, *events: object) -> None:
        self.book_set.says.append(events)  # type: ignore[arg-type]
        self.adapter.on_message(b"frame")

    def check_after(self, seconds: float) -> None:
        self.adapter.check(time.monotonic() + seconds)


async def test_it_is_ready_once_every_subscription_is_acknowledged() -> None:
    world = World()
    world.book_set.requests = [ControlMessage(1, "first"), ControlMessage(2, "second")]
    await world.adapter.subscribe()
    assert world.sent == ["first", "second"]

    world.receive(Acknowledged(1))
    assert not world.adapter.ready.is_set()
    assert world.book_set.lines == set()
    world.receive(Acknowledged(2))

    assert world.adapter.ready.is_set()
    assert len(world.book_set.lines) == 1


async def test_it_is_ready_with_its_first_message_where_no_acknowledgement_ever_comes() -> None:
    world = World()
    world.book_set.requests = [ControlMessage(None, "all")]
    await world.adapter.subscribe()
    assert not world.adapter.ready.is_set()

    world.receive(Refused(None, "no such market"))
    assert not world.adapter.ready.is_set()
    world.receive(updated("BTCUSDT"))

    assert world.adapter.ready.is_set()
    assert len(world.book_set.lines) == 1


async def test_without_books_and_acknowledgements_it_is_ready_at_once() -> None:
    world = World(topics={"trades"})
    world.book_set.requests = [ControlMessage(None, "all")]

    await world.adapter.subscribe()

    assert world.adapter.ready.is_set()


async def test_an_acknowledgement_of_something_else_makes_nothing_ready() -> None:
    world = World()
    await world.adapter.subscribe()

    world.receive(Acknowledged(99))

    assert not world.adapter.ready.is_set()


@pytest.mark.parametrize("refused", [False, True])
async def test_an_unanswered_or_refused_subscription_ends_the_connection_in_time(refused: bool) -> None:
    world = World()
    await world.adapter.subscribe()
    if refused:
        world.receive(Refused(1, "Invalid request"))
    world.check_after(world.adapter.timeout - 1)

    with pytest.raises(WebSocketTimeoutError, match="no answer to 1 subscriptions within 10 s"):
        world.check_after(world.adapter.timeout + 1)


async def test_symbols_without_a_first_book_are_reported_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.adapter.subscribe()
    world.receive(Acknowledged(1), updated("BTCUSDT"))
    world.check_after(world.adapter.timeout - 1)
    assert world.book_set.asked == [None]

    world.check_after(world.adapter.timeout + 1)
    world.check_after(world.adapter.timeout + 2)

    assert world.book_set.asked == [None, ["ETHUSDT"]]
    assert "binance: no book of ETHUSDT, asking again" in caplog.text
    world.check_after(2 * world.adapter.timeout + 2)
    assert world.book_set.asked == [None, ["ETHUSDT"], ["ETHUSDT"]]


async def test_a_symbol_that_waits_for_its_snapshot_is_not_asked_for_again() -> None:
    world = World()
    await world.adapter.subscribe()
    world.receive(Acknowledged(1), updated("BTCUSDT"))
    world.snapshots.pending.add("ETHUSDT")

    world.check_after(world.adapter.timeout + 1)

    assert world.book_set.asked == [None]


async def test_a_book_that_only_a_new_subscription_brings_is_subscribed_to_anew() -> None:
    world = World()

    world.receive(ResubscribeNeeded("ETHUSDT"))

    assert world.book_set.asked == [["ETHUSDT"]]
    assert world.sent == ["subscribe"]


async def test_an_announced_end_wants_a_successor() -> None:
    world = World()
    assert not world.adapter.replace_wanted.is_set()

    world.receive(ClosingSoon("maintenance"))

    assert world.adapter.replace_wanted.is_set()


@pytest.mark.parametrize(("lifetime", "wanted"), [(None, False), (3600.0, True), (7200.0, False)])
async def test_the_end_of_its_lifetime_wants_a_successor(lifetime: float | None, wanted: bool) -> None:
    world = World(lifetime=lifetime)
    world.adapter.opened_at = time.monotonic()

    world.check_after(3601)

    assert world.adapter.replace_wanted.is_set() is wanted


async def test_lines_to_the_same_symbols_end_their_lives_at_different_times() -> None:
    first, second = World(lifetime=3600.0), World(lifetime=3600.0, slot=1)
    for world in (first, second):
        world.adapter.opened_at = time.monotonic()
        world.check_after(3599)

    assert not first.adapter.replace_wanted.is_set()
    assert second.adapter.replace_wanted.is_set()


async def test_a_successor_fills_the_same_books() -> None:
    world = World()
    successor = world.adapter.successor()

    world.book_set.says.append([updated(update_id=3)])
    successor.on_message(b"frame")

    assert successor.feed is world.adapter.feed
    assert [book.update_id for book in world.books] == [3]


async def test_only_a_changed_book_is_valid_data() -> None:
    world = World()
    world.receive(Acknowledged(1))
    assert not world.adapter.has_valid_data

    world.receive(updated())

    assert world.adapter.has_valid_data


async def test_every_message_is_handed_to_the_recording() -> None:
    world = World()

    world.receive()

    assert world.frames == [("ws://127.0.0.1:1", b"frame")]


async def test_after_a_stall_every_book_is_discarded_and_no_message_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.receive(updated(update_id=1))

    world.now += 6.0
    world.receive(updated(update_id=2))
    world.receive(updated(update_id=3))

    assert [book.update_id for book in world.books] == [1]
    assert world.adapter.feed.latest == {}
    assert world.frames == [("ws://127.0.0.1:1", b"frame")]


async def test_a_request_with_an_unknown_symbol_is_sent_again_without_it() -> None:
    world = World()
    world.book_set.requests = [ControlMessage(1, "both")]
    world.book_set.others = [ControlMessage(2, "the other")]
    await world.adapter.subscribe()

    world.receive(Refused(1, "handler not found", "ETHUSDT"))
    assert world.sent == ["both", "the other"]
    assert not world.adapter.ready.is_set()
    world.receive(Acknowledged(2))

    assert world.adapter.ready.is_set()
    world.check_after(world.adapter.timeout + 1)
    assert world.adapter.feed.states() == {"BTCUSDT": "syncing"}


async def test_a_connection_whose_symbols_are_all_refused_stays_open() -> None:
    world = World()
    await world.adapter.subscribe()

    world.receive(Refused(1, "handler not found", "ETHUSDT"))

    assert world.adapter.ready.is_set()
    assert world.sent == ["subscribe"]
