"""Streams that stall while their connection answers pings: asked about, confirmed, lost, or suspect."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random

import pytest

from bookbus.feeders.books.events import BookLost, BookUnchanged, TradeHappened
from bookbus.feeders.errors import RestError
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.stall_watch import LOOK_INTERVAL, StallCounters, StallWatch
from bookbus.feeders.venue import Top
from bookbus.schemas.snapshot import Levels
from tests.support.fake_venue import ASKS, BIDS, Collected, updated

OTHER_BIDS: Levels = ((99.5, 1.0), (98.0, 2.0))
REST = RestClient("http://nowhere", WeightBudget(6_000))


class Tops:
    """The exchange's answers, which a test sets; an error stands for none."""

    def __init__(self) -> None:
        self.books: dict[str, Top] = {}
        self.error: Exception | None = None
        self.asked: list[Sequence[str]] = []

    async def fetch(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, Top]:
        self.asked.append(natives)
        if self.error is not None:
            raise self.error
        return {native: self.books[native] for native in natives if native in self.books}


class World:
    """One connection of some symbols; time passes by looks, questions are answered at once."""

    def __init__(self, *natives: str, tops: bool = True) -> None:
        self.natives = natives or ("BTCUSDT", "ETHUSDT")
        self.collected = Collected(*self.natives)
        self.feed = self.collected.feed
        self.last_sign_of_life = 1.0
        self.abandoned: list[str] = []
        self.again: list[str] = []
        self.replaced = 0
        self.delivered = 0
        self.exchange = Tops()
        self.now = 1_700_000_000.0
        self.update_id = 100
        self.in_grace: Callable[[], None] = lambda: None
        self.watch = StallWatch([self], self.exchange if tops else None, REST, lambda: self.now, self._sleep)

    def abandon(self, reason: str) -> None:
        self.abandoned.append(reason)
        self.lose(*self.natives)

    def subscribe_again(self, natives: Sequence[str]) -> None:
        self.again.extend(natives)

    def replace(self) -> None:
        self.replaced += 1

    def lose(self, *natives: str) -> None:
        self.collected.receive(*(BookLost(native, "connection lost") for native in natives))
        for native in natives:
            self.collected.book_set.ids[native, "book"] = None

    def update(self, *natives: str, late: float = 0.0, bids: Levels = BIDS, topic: str = "book") -> None:
        """The exchange's book moves, and the stream delivers it `late` seconds after."""
        self.update_id += 1
        for native in natives:
            event = updated(native, self.update_id, bids, topic)  # type: ignore[arg-type]
            self.exchange.books[native] = Top(bids, ASKS, 20, self.update_id)
            made_us = round((self.now - late) * 1e6)
            event = type(event)(native, self.update_id, made_us, bids, ASKS, event.topic)
            self.collected.receive(event, received_us=round(self.now * 1e6))

    def exchange_moves(self, *natives: str, bids: Levels = OTHER_BIDS) -> None:
        """The exchange's book moves and the stream does not deliver it."""
        for native in natives:
            self.exchange.books[native] = Top(bids, ASKS, 20, self.update_id + 5)

    async def pass_time(self, seconds: float, *moving: str, late: float = 0.0) -> None:
        for _ in range(round(seconds / LOOK_INTERVAL)):
            self.now += LOOK_INTERVAL
            if moving:
                self.update(*moving, late=late)
            if questions := self.watch.look():
                await self.watch.ask(questions)

    def states(self) -> list[str]:
        return [self.feed.latest["book", native].state for native in self.natives]

    def held(self, native: str = "BTCUSDT") -> bool:
        return self.watch.held_since(self, "book", native) is not None

    def _sleep(self, _: float) -> Awaitable[None]:
        self.in_grace()

        async def done() -> None:
            self.now += 0.1

        return done()


async def running(*natives: str, tops: bool = True) -> World:
    """Both symbols have moved long enough for their gaps to be known."""
    world = World(*natives, tops=tops)
    await world.pass_time(15, *world.natives)
    return world


async def test_a_stream_that_moves_is_never_asked_about() -> None:
    world = await running()

    await world.pass_time(300, *world.natives)

    assert world.exchange.asked == []
    assert world.watch.counters == StallCounters()


async def test_a_silent_connection_whose_books_differ_is_ended_within_three_seconds() -> None:
    world = await running()
    world.exchange_moves("BTCUSDT")

    await world.pass_time(3)

    assert world.abandoned == ["the stream stalled: silent, but the exchange has other books: BTCUSDT"]
    assert world.states() == ["suspect", "suspect"]
    assert world.watch.counters.stalls == 1


async def test_a_connection_that_stalls_again_and_again_is_ended_at_most_twenty_times_in_ten_minutes() -> None:
    world = await running()
    live = 0

    for _ in range(600):
        # Each new connection delivers one book of each symbol, then nothing.
        if len(world.abandoned) > world.delivered:
            world.delivered = len(world.abandoned)
            world.update(*world.natives)
        world.exchange_moves(*world.natives)
        await world.pass_time(1)
        live += "live" in world.states()

    assert 5 <= len(world.abandoned) <= 20
    assert live < 5 * len(world.abandoned) + 5


async def test_a_connection_that_may_not_be_ended_yet_is_live_again_with_its_next_update() -> None:
    world = await running()
    world.exchange_moves(*world.natives)
    await world.pass_time(3)
    world.update(*world.natives)
    world.exchange_moves(*world.natives)
    await world.pass_time(4.5)
    assert (len(world.abandoned), world.states()) == (1, ["suspect", "suspect"])

    await world.pass_time(1, *world.natives)

    assert (len(world.abandoned), world.states()) == (1, ["live", "live"])


@pytest.mark.parametrize("symbols", [2, 300])
async def test_a_market_without_any_change_costs_at_most_two_hundred_and_fifty_requests_an_hour(symbols: int) -> None:
    world = await running(*(f"S{number}USDT" for number in range(symbols)))

    await world.pass_time(3_600)

    assert 0 < len(world.exchange.asked) <= 250
    assert set(world.states()) == {"live"}
    assert world.watch.counters.stalls == 0


async def test_new_books_that_never_change_cost_as_few_requests_and_stay_live() -> None:
    world = World(*(f"S{number}USDT" for number in range(50)))
    world.update(*world.natives)

    await world.pass_time(3_600)

    assert 0 < len(world.exchange.asked) <= 250
    assert set(world.states()) == {"live"}


async def test_a_new_book_that_never_changes_is_compared_within_five_seconds() -> None:
    world = World()
    world.update(*world.natives)
    await world.pass_time(1)
    world.exchange_moves("ETHUSDT")

    await world.pass_time(5)

    assert len(world.abandoned) == 1


async def test_many_symbols_of_any_pace_never_cost_more_than_one_request_in_two_seconds() -> None:
    random = Random(7)
    world = World(*(f"S{number}USDT" for number in range(200)))
    world.update(*world.natives)
    due = {native: random.expovariate(1 / 20) for native in world.natives}

    for second in range(1_200):
        moving = [native for native in world.natives if due[native] <= second]
        for native in moving:
            # The longer it runs, the quieter the market gets.
            due[native] = second + random.expovariate(1 / (20 + second / 2))
        if moving:
            world.update(*moving)
        await world.pass_time(1)

    assert len(world.exchange.asked) <= 610
    assert set(world.states()) == {"live"}


async def test_symbols_that_fall_silent_one_by_one_cost_no_more_than_a_request_in_two_seconds() -> None:
    world = await running(*(f"S{number}USDT" for number in range(200)))

    for number in range(120):
        await world.pass_time(0.5, *world.natives[number:])

    assert 20 < len(world.exchange.asked) <= 10 + 60 / 2 + 1


async def test_one_silent_symbol_that_differs_is_lost_and_subscribed_again() -> None:
    world = await running()
    world.exchange_moves("BTCUSDT")

    await world.pass_time(3, "ETHUSDT")

    assert world.abandoned == []
    assert world.again == ["BTCUSDT"]
    assert world.collected.book_set.invalidated == [
        ("BTCUSDT", "the stream stalled: the exchange has another book"),
    ]
    assert world.replaced == 0


async def test_a_symbol_that_stalls_again_soon_replaces_its_connection_at_most_twice_a_minute() -> None:
    world = await running()
    world.exchange_moves("BTCUSDT")

    await world.pass_time(60, "ETHUSDT")

    assert len(world.again) > 3
    assert 1 <= world.replaced <= 2


async def test_a_quiet_market_that_the_answer_confirms_stays_live_with_few_questions() -> None:
    world = await running()
    world.feed.latest.clear()
    world.update(*world.natives)

    await world.pass_time(600)

    assert world.states() == ["live", "live"]
    assert world.abandoned == []
    assert not world.held()
    assert 1 < len(world.exchange.asked) < 60
    assert world.watch.counters.stall_confirmed > 0


async def test_an_update_within_the_grace_is_no_stall() -> None:
    world = await running()
    world.exchange_moves("BTCUSDT", "ETHUSDT")
    world.in_grace = lambda: world.update(*world.natives)

    await world.pass_time(3)

    assert world.abandoned == []
    assert world.watch.counters.stalls == 0


async def test_an_answer_older_than_the_book_is_no_stall() -> None:
    world = await running()
    for native in world.natives:
        world.exchange.books[native] = Top(OTHER_BIDS, ASKS, 20, 3)

    await world.pass_time(5)

    assert world.states() == ["live", "live"]


async def test_an_answer_of_best_prices_without_ids_confirms_a_book_that_has_them() -> None:
    world = await running()
    for native in world.natives:
        world.exchange.books[native] = Top(BIDS[:1], ASKS[:1], 1)

    await world.pass_time(5)

    assert world.states() == ["live", "live"]


@pytest.mark.parametrize("tops", [True, False])
async def test_without_an_answer_a_busy_book_is_held_at_once_and_suspect_soon(tops: bool) -> None:
    world = await running(tops=tops)
    world.exchange.error = RestError("banned")

    await world.pass_time(2.5)
    assert (world.held(), world.states()) == (True, ["live", "live"])
    await world.pass_time(2.5)

    assert world.states() == ["suspect", "suspect"]
    assert world.abandoned == []


async def test_a_suspect_book_is_live_again_with_any_update_and_needs_no_snapshot() -> None:
    world = await running()
    world.exchange.error = RestError("banned")
    await world.pass_time(10)

    world.collected.receive(*(BookUnchanged(native, world.update_id + 1) for native in world.natives))
    await world.pass_time(0.5)

    assert world.states() == ["live", "live"]
    assert world.collected.snapshots.asked == []
    assert not world.held()


async def test_a_suspect_book_is_live_again_when_an_answer_comes_and_confirms_it() -> None:
    world = await running()
    world.exchange.error = RestError("banned")
    await world.pass_time(10)

    world.exchange.error = None
    await world.pass_time(20)

    assert world.states() == ["live", "live"]


async def test_a_ban_flips_no_book_that_is_usually_slow() -> None:
    world = World()
    for _ in range(30):
        await world.pass_time(60)
        world.update(*world.natives)
    world.exchange.error = RestError("banned")
    world.collected.books.clear()

    for _ in range(20):
        await world.pass_time(75)
        world.update(*world.natives)

    assert {state for _, state in world.collected.published} == {"live"}


async def test_a_ban_is_not_asked_more_than_a_few_times_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    world = await running()
    world.exchange.error = RestError("banned")

    await world.pass_time(300)

    assert len(world.exchange.asked) < 35
    assert sum("cannot ask" in message for message in caplog.messages) == 1


async def test_a_symbol_that_the_exchange_does_not_know_any_more_is_suspect() -> None:
    world = await running()
    del world.exchange.books["BTCUSDT"]

    await world.pass_time(6, "ETHUSDT")

    assert world.states() == ["suspect", "live"]


async def test_a_connection_that_is_not_open_is_not_judged() -> None:
    world = await running()
    world.last_sign_of_life = 0.0

    await world.pass_time(60)

    assert world.exchange.asked == []
    assert not world.held()


async def test_a_process_that_stalled_draws_no_conclusion() -> None:
    world = await running()
    world.exchange_moves(*world.natives)
    world.now += 60

    assert world.watch.look() == []
    assert not world.held()


async def test_a_lost_book_is_not_asked_about() -> None:
    world = await running()
    world.lose("BTCUSDT")

    await world.pass_time(60, "ETHUSDT")

    assert world.exchange.asked == []


async def test_late_updates_that_the_exchange_is_ahead_of_end_the_connection() -> None:
    world = await running()
    for late in (1.0, 2.0, 3.0):
        await world.pass_time(1, *world.natives, late=late)
    assert world.exchange.asked == []

    for _ in range(12):
        world.now += LOOK_INTERVAL
        world.update(*world.natives, late=4.0)
        world.exchange_moves(*world.natives)
        if questions := world.watch.look():
            await world.watch.ask(questions)

    assert world.abandoned
    assert "late" in world.abandoned[0]


async def test_one_late_symbol_of_many_is_lost_alone() -> None:
    world = await running("BTCUSDT", "ETHUSDT", "SOLUSDT")
    others = world.natives[1:]

    for _ in range(12):
        world.now += LOOK_INTERVAL
        world.update(*others)
        world.update("BTCUSDT", late=5.0)
        world.exchange_moves("BTCUSDT")
        if questions := world.watch.look():
            await world.watch.ask(questions)

    assert world.abandoned == []
    assert set(world.again) == {"BTCUSDT"}


async def test_a_clock_that_jumps_adds_doubt_which_one_answer_ends() -> None:
    world = await running()

    await world.pass_time(60, *world.natives, late=600.0)

    assert world.abandoned == []
    assert len(world.exchange.asked) == 1
    assert world.states() == ["live", "live"]


async def test_late_updates_without_an_answer_end_the_connection_once() -> None:
    world = await running()
    world.exchange.error = RestError("banned")

    await world.pass_time(8, *world.natives, late=30.0)
    await world.pass_time(60, *world.natives, late=30.0)

    assert len(world.abandoned) == 1


async def test_a_trade_beyond_the_book_asks_before_its_silence_does() -> None:
    world = World()
    for _ in range(10):
        await world.pass_time(5)
        world.update(*world.natives)
    await world.pass_time(0.5)
    world.exchange_moves("BTCUSDT")
    world.collected.receive(TradeHappened("BTCUSDT", 1, 98.0, 1.0, "sell", round(world.now * 1e6) + 100_000))

    await world.pass_time(3)

    assert world.again == ["BTCUSDT"]


async def test_quotes_that_moved_on_ask_about_a_silent_book() -> None:
    world = World("BTCUSDT")
    for _ in range(10):
        await world.pass_time(5)
        world.update("BTCUSDT")
        world.update("BTCUSDT", topic="quote")
    await world.pass_time(0.5)

    for _ in range(6):
        world.update("BTCUSDT", topic="quote", bids=OTHER_BIDS)
        await world.pass_time(0.5)

    assert world.again[:1] == ["BTCUSDT"]


async def test_a_stream_without_the_exchanges_time_is_compared_now_and_then() -> None:
    world = World("BTCUSDT")
    for _ in range(300):
        world.now += LOOK_INTERVAL
        world.update_id += 1
        book = updated("BTCUSDT", world.update_id)
        world.collected.receive(type(book)("BTCUSDT", world.update_id, None, BIDS, ASKS))
        world.exchange.books["BTCUSDT"] = Top(OTHER_BIDS, ASKS, 20, world.update_id + (50 if world.now > 1_100 else 0))
        if questions := world.watch.look():
            await world.watch.ask(questions)
        if world.now < 1_100:
            assert world.abandoned == []

    assert world.abandoned
    assert len(world.exchange.asked) < 12
