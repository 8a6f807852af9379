"""The simulated market: never crossed, ids without holes, and flushes that add up to the truth."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookbus.feeders.simulator.binance.messages import depth_body
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, BookAt, LiveFeed, MarketFeed, PreparedFeed
from bookbus.feeders.simulator.core.market import (
    Flush,
    Quote,
    RawLevel,
    SimulatedFill,
    SimulatedInstrument,
    SimulatedMarket,
    decimal_text,
    instruments,
    merged,
)
from bookbus.feeders.simulator.core.settings import SimulatorSettings

LEVELS = 120
SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "DOGEUSDT", "AAAZUSDT", "AABZUSDT", "ETHBTC"])


def market(symbol: str = "BTCUSDT", seed: int = 1, levels: int = LEVELS) -> SimulatedMarket:
    return SimulatedMarket(instruments([symbol])[0], seed, levels)


def settings_of(**options: Any) -> SimulatorSettings:
    return SimulatorSettings(**{"changes": 8, "levels": LEVELS, "truth_flushes": 1000} | options)


def live_feed(symbol: str = "BTCUSDT", **options: Any) -> LiveFeed:
    return LiveFeed(instruments([symbol])[0], settings_of(**options), truth_depth=20)


def prepared_feed(slots: int = 7, rate: float = 10.0) -> PreparedFeed:
    settings = settings_of(prepared=slots / 10, rate=rate)
    return PreparedFeed(instruments(["BTCUSDT"])[0], settings, truth_depth=20, render=depth_body)


def next_flush(feed: MarketFeed) -> Flush | None:
    """All steps of a slot, then its flush."""
    for _ in range(STEPS_PER_FLUSH):
        feed.step()
    return feed.flush()


class Replica:
    """A book kept from a snapshot and flushes, as a client keeps it."""

    def __init__(self, snapshot: BookAt) -> None:
        self.update_id = snapshot.update_id
        self.bids = dict(snapshot.bids)
        self.asks = dict(snapshot.asks)

    def apply(self, flush: Flush) -> None:
        assert flush.first_id <= self.update_id + 1 <= flush.last_id
        self.update_id = flush.last_id
        _set(self.bids, flush.bids)
        _set(self.asks, flush.asks)

    def top(self, depth: int) -> BookAt:
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return BookAt(self.update_id, bids[:depth], asks[:depth])


def _set(side: dict[int, int], levels: Iterable[RawLevel]) -> None:
    for price, quantity in levels:
        if quantity:
            side[price] = quantity
        else:
            side.pop(price, None)


def whole_book(of: SimulatedMarket) -> BookAt:
    return BookAt(of.flushed_id, of.bids.top_at_flush(10**6), of.asks.top_at_flush(10**6))


@given(symbol=SYMBOLS, seed=st.integers(0, 10**6), steps=st.lists(st.integers(1, 60), max_size=30))
def test_best_bid_stays_below_best_ask_and_prices_above_zero(symbol: str, seed: int, steps: list[int]) -> None:
    simulated = market(symbol, seed)

    for mutations in steps:
        for _ in range(mutations):
            simulated.step(1)
            assert simulated.bids.best < -simulated.asks.best
    assert min(simulated.bids.keys) > 0
    assert min(simulated.bids.quantities) > 0
    assert min(simulated.asks.quantities) > 0


@given(symbol=SYMBOLS, seed=st.integers(0, 10**6), steps=st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_flushes_follow_each_other_and_add_up_to_the_book(symbol: str, seed: int, steps: list[int]) -> None:
    simulated = market(symbol, seed)
    replica = Replica(whole_book(simulated))

    for mutations in steps:
        expected_first = simulated.update_id + 1
        simulated.step(mutations)
        flush = simulated.flush()
        if flush is None:
            assert mutations == 0
            continue
        assert (flush.first_id, flush.last_id) == (expected_first, simulated.update_id)
        assert flush.last_id - flush.first_id + 1 == mutations
        replica.apply(flush)

    assert replica.top(10**6) == whole_book(simulated)


@given(seed=st.integers(0, 10**6), mutations=st.integers(1, 200))
def test_a_flush_names_each_touched_level_once_with_its_final_quantity(seed: int, mutations: int) -> None:
    simulated = market(seed=seed)
    before = whole_book(simulated)

    simulated.step(mutations)
    flush = simulated.flush()

    assert flush is not None
    for changed, old, side_before, ladder in (
        (flush.bids, flush.bids_before, dict(before.bids), simulated.bids),
        (flush.asks, flush.asks_before, dict(before.asks), simulated.asks),
    ):
        prices = [price for price, _ in changed]
        assert len(prices) == len(set(prices))
        assert all(ladder.quantity_at(ladder.sign * price) == quantity for price, quantity in changed)
        assert all(side_before.get(price, 0) == quantity for price, quantity in old)


def test_levels_that_came_and_went_within_a_flush_are_sent_as_removed() -> None:
    simulated = market()
    orphans = 0

    for _ in range(200):
        simulated.step(40)
        flush = simulated.flush()
        assert flush is not None
        before = dict(flush.bids_before) | dict(flush.asks_before)
        orphans += sum(not quantity and not before[price] for price, quantity in [*flush.bids, *flush.asks])

    assert orphans > 10


@given(seed=st.integers(0, 10**6), mutations=st.integers(0, 300), depth=st.integers(1, LEVELS * 2))
def test_the_book_at_the_last_flush_is_known_while_the_market_moves_on(seed: int, mutations: int, depth: int) -> None:
    simulated = market(seed=seed)
    at_flush = simulated.bids.top(depth), simulated.asks.top(depth)

    simulated.step(mutations)

    assert (simulated.bids.top_at_flush(depth), simulated.asks.top_at_flush(depth)) == at_flush


@given(seed=st.integers(0, 10**6), steps=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_merged_flushes_lead_to_the_same_book_and_undone_ones_lead_back(seed: int, steps: list[int]) -> None:
    simulated = market(seed=seed)
    start = whole_book(simulated)
    flushes = []
    for mutations in steps:
        simulated.step(mutations)
        flush = simulated.flush()
        assert flush is not None
        flushes.append(flush)
    replica = Replica(start)

    replica.apply(merged(flushes))
    assert replica.top(10**6) == whole_book(simulated)

    replica.update_id = start.update_id
    replica.apply(merged(flushes).undone())
    assert replica.top(10**6)[1:] == start[1:]


@given(seed=st.integers(0, 10**6), mutations=st.integers(1, 300))
def test_every_change_of_the_touch_is_quoted_and_every_fill_has_its_trade_ids(seed: int, mutations: int) -> None:
    simulated = market(seed=seed)
    last_quote, last_trade = simulated.quote(), None
    for happened in (event for _ in range(mutations) for event in simulated.step(1)):
        match happened:
            case Quote():
                assert last_quote[1:] != happened[1:]
                last_quote = happened
            case SimulatedFill():
                assert happened.steps > 0
                assert last_trade is None or happened.last_trade_id - happened.trades == last_trade
                last_trade = happened.last_trade_id

    assert last_quote[1:] == simulated.quote()[1:]


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    def flow(seed: int) -> list[Flush | None]:
        simulated = market(seed=seed)
        flushes = []
        for _ in range(20):
            simulated.step(20)
            flushes.append(simulated.flush())
        return flushes

    assert flow(3) == flow(3)
    assert flow(3) != flow(4)


def test_books_are_deeper_than_a_full_snapshot_and_mostly_one_tick_wide() -> None:
    simulated = market(levels=6000)
    spreads = []
    for _ in range(1000):
        simulated.step(20)
        simulated.flush()
        spreads.append(-simulated.asks.best - simulated.bids.best)

    assert min(len(simulated.bids), len(simulated.asks)) > 5000
    assert spreads.count(1) > 600
    assert simulated.bids.best != simulated.instrument.start_ticks


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (6183763, 2, "61837.63000000"),
        (0, 5, "0.00000000"),
        (7, 0, "7.00000000"),
        (1, 8, "0.00000001"),
        (100, 2, "1.00000000"),
    ],
)
def test_numbers_have_eight_decimals(units: int, decimals: int, text: str) -> None:
    assert decimal_text(units, decimals) == text


@given(ticks=st.integers(1, 10**12), decimals=st.integers(0, 8))
def test_a_price_is_the_number_that_its_text_spells(ticks: int, decimals: int) -> None:
    instrument = SimulatedInstrument("XY", "X", "Y", decimals, decimals, 1, 1)

    assert instrument.price(ticks) == float(instrument.price_text(ticks))
    assert instrument.quantity(ticks) == float(instrument.quantity_text(ticks))


def test_synthetic_markets_have_different_names_and_room_below_their_price() -> None:
    synthetic = instruments(600)

    assert len({instrument.native for instrument in synthetic}) == 600
    assert min(instrument.start_ticks for instrument in synthetic) >= 60_000


@pytest.mark.parametrize("create", [live_feed, prepared_feed], ids=["live", "prepared"])
def test_a_feed_s_snapshots_flushes_and_truth_agree(create: Callable[[], MarketFeed]) -> None:
    feed = create()
    replicas = [Replica(feed.snapshot(10**6, "flushed"))]

    for slot in range(50):
        flush = next_flush(feed)
        assert flush is not None
        for replica in replicas:
            replica.apply(flush)
            assert replica.top(20) == feed.truth(flush.last_id) == feed.top(20)
        if slot % 5 == 0:
            replicas.append(Replica(feed.snapshot(10**6, "flushed")))

    assert len(feed.truth_ids(since=0)) == 51
    assert feed.truth_ids(since=replicas[0].update_id) == [replicas[0].update_id]


def test_a_prepared_feed_rests_where_its_market_rested() -> None:
    feed = prepared_feed(slots=20, rate=3.0)
    replica = Replica(feed.snapshot(10**6, "flushed"))
    flushes = 0

    for _ in range(100):
        if flush := next_flush(feed):
            replica.apply(flush)
            flushes += 1
        assert replica.top(20) == feed.truth(replica.update_id)

    assert 25 <= flushes <= 35


def test_a_prepared_feed_quotes_what_its_book_says() -> None:
    feed = prepared_feed()

    for _ in range(30):
        feed.flush()
        for happened in feed.step():
            assert isinstance(happened, Quote)
            book = feed.top(1)
            assert happened == Quote(book.update_id, book.bids[0], book.asks[0])


@pytest.mark.parametrize("rate", [0.0, 0.5, 2.5, 10.0])
def test_a_feed_flushes_as_often_as_asked(rate: float) -> None:
    feed = live_feed(rate=rate)

    flushes = sum(next_flush(feed) is not None for _ in range(200))

    assert flushes == pytest.approx(rate * 20, abs=1)


def test_a_snapshot_inside_the_next_flush_bridges() -> None:
    for steps_before in range(4):
        feed = live_feed(rate=0.5)
        for _ in range(steps_before):
            feed.step()

        snapshot = feed.snapshot(10**6, "unflushed")
        replica = Replica(snapshot)
        for _ in range(STEPS_PER_FLUSH - steps_before):
            feed.step()
        flush = feed.flush()

        assert flush is not None
        assert feed.truth(snapshot.update_id) == top(snapshot, 20)
        assert flush.first_id <= snapshot.update_id < flush.last_id
        replica.apply(flush)
        assert replica.top(20) == feed.truth(flush.last_id)


def top(book: BookAt, depth: int) -> BookAt:
    return BookAt(book.update_id, book.bids[:depth], book.asks[:depth])


def test_a_snapshot_ahead_makes_the_next_flushes_old() -> None:
    feed = live_feed()
    feed.step()

    snapshot = feed.snapshot(10**6, "ahead")
    flushes = []
    for _ in range(6):
        flush = next_flush(feed)
        assert flush is not None
        assert feed.top(20).update_id == flush.last_id
        flushes.append(flush)

    old = [flush for flush in flushes if flush.last_id <= snapshot.update_id]
    assert len(old) == 3
    assert flushes[3].first_id == snapshot.update_id + 1
    replica = Replica(snapshot)
    for flush in flushes[3:]:
        replica.apply(flush)
    assert replica.top(20) == feed.truth(replica.update_id)


@pytest.mark.parametrize("create", [live_feed, prepared_feed], ids=["live", "prepared"])
def test_a_stale_snapshot_is_the_first_book(create: Callable[[], MarketFeed]) -> None:
    feed = create()
    first = feed.snapshot(50, "flushed")
    for _ in range(30):
        feed.step()
        feed.flush()

    stale = feed.stale_snapshot(50)

    assert stale == first
    assert feed.truth(stale.update_id) == top(first, 20)


@pytest.mark.parametrize("create", [live_feed, prepared_feed], ids=["live", "prepared"])
def test_a_restart_begins_with_lower_ids(create: Callable[[], MarketFeed]) -> None:
    feed = create()
    for _ in range(10):
        feed.step()
        feed.flush()
    before = feed.top(20).update_id

    feed.restart()

    assert feed.top(20).update_id < before - 1_000_000
    replica = Replica(feed.snapshot(10**6, "flushed"))
    flush = next_flush(feed)
    assert flush is not None
    replica.apply(flush)
    assert replica.top(20) == feed.truth(flush.last_id)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_memory_of_the_truth_is_bounded(seed: int) -> None:
    feed = live_feed(seed=seed, truth_flushes=100)
    for _ in range(300):
        feed.step()
        feed.flush()

    assert len(feed.truth_ids(since=0)) == 100
    assert feed.truth(feed.truth_ids(since=0)[0]) is not None
