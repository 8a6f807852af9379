"""What a protocol says, turned into snapshots, trades and requests."""

import logging

import pytest

from bookbus.feeders.books.events import (
    Acknowledged,
    BookLost,
    BookUnchanged,
    BookUpdated,
    ClosingSoon,
    Ignored,
    KnownWindowLeft,
    PrecisionLost,
    Refused,
    ResubscribeNeeded,
    SnapshotNeeded,
    TradeHappened,
)
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.feed import FeedCounters
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade
from tests.support.fake_venue import ASKS, BIDS, Collected, updated

WINDOW_LEFT = (KnownWindowLeft("BTCUSDT"), SnapshotNeeded("BTCUSDT", 100, True))
OTHER_BIDS = ((99.5, 3.0),)


def _holding() -> Collected:
    """Book 1 is published; book 2 reaches beyond the known window and waits for an answer under way."""
    world = Collected()
    world.receive(updated(update_id=1))
    world.snapshots.soon.add("BTCUSDT")
    world.receive(*WINDOW_LEFT, updated(update_id=2, bids=OTHER_BIDS))
    assert world.published == [(1, "live")]
    return world


def test_an_update_becomes_a_snapshot_with_every_field() -> None:
    world = Collected()

    world.receive(updated(update_id=42), received_us=7_000_000)

    expected = OrderBookSnapshot(
        exchange="binance",
        symbol="BTC-USDT",
        native="BTCUSDT",
        state="live",
        update_id=42,
        exchange_us=1_700_000_000_000_042,
        received_us=7_000_000,
        depth=20,
        bids=BIDS,
        asks=ASKS,
    )
    assert world.books == [("book", expected)]
    assert world.feed.latest == {("book", "BTCUSDT"): expected}


def test_a_quote_is_a_book_of_depth_one_beside_the_book() -> None:
    world = Collected()

    world.receive(updated(update_id=1), updated(update_id=2, topic="quote"))

    assert [(topic, book.update_id, book.depth) for topic, book in world.books] == [("book", 1, 20), ("quote", 2, 1)]
    assert set(world.feed.latest) == {("book", "BTCUSDT"), ("quote", "BTCUSDT")}


def test_a_trade_is_told_with_every_field() -> None:
    world = Collected()

    world.receive(TradeHappened("ETHUSDT", 5, 2500.0, 0.25, "sell", 1_700_000_006_000_000), received_us=7_000_000)

    assert world.trades == [
        Trade("binance", "ETH-USDT", "ETHUSDT", 5, 2500.0, 0.25, "sell", 1_700_000_006_000_000, 7_000_000),
    ]


def test_everything_that_happens_is_counted() -> None:
    world = Collected()
    world.book_set.says.extend(
        [
            [updated(update_id=1)],
            [BookUnchanged("BTCUSDT", 2)],
            [*WINDOW_LEFT],
            [BookLost("BTCUSDT", "gap")],
            WebSocketProtocolError("no JSON"),
        ]
    )

    for _ in range(5):
        world.feed.receive(b"frame", 0, 1)

    assert world.feed.counters == FeedCounters(
        frames=5,
        skipped=1,
        updates=1,
        unchanged=1,
        lost=1,
        snapshots_asked=1,
        windows_left=1,
        last_skipped="no JSON",
    )


def test_counters_add_up_and_keep_the_newest_text_there_is() -> None:
    total = FeedCounters(frames=1, last_skipped="old")

    total.add(FeedCounters(frames=2, lost=3))
    total.add(FeedCounters(skipped=1, last_skipped="new", ignored={"ticker": 1}))
    total.add(FeedCounters(ignored={"ticker": 2, "aggTrade": 1}))

    assert total == FeedCounters(frames=3, lost=3, skipped=1, last_skipped="new", ignored={"ticker": 3, "aggTrade": 1})


NOW_US = 1_700_000_000_000_000


@pytest.mark.parametrize(
    "time_us",
    [0, 5_000, NOW_US * 1000, NOW_US + 2 * 86_400_000_000, NOW_US // 1000],
    ids=["none", "1970", "microseconds as milliseconds", "two days ahead", "milliseconds as microseconds"],
)
def test_an_implausible_exchange_time_is_counted_and_not_told(time_us: int) -> None:
    world = Collected()

    world.receive(BookUpdated("BTCUSDT", 1, time_us, BIDS, ASKS), received_us=NOW_US)
    world.receive(TradeHappened("BTCUSDT", 5, 2500.0, 0.25, "sell", time_us), received_us=NOW_US)

    assert [book.exchange_us for _, book in world.books] == [None]
    assert [trade.exchange_us for trade in world.trades] == [NOW_US]
    assert world.feed.counters.bad_times == 2


@pytest.mark.parametrize("seconds", [-86_400 * 400, -1, 0, 3600])
def test_a_quiet_book_and_a_wrong_clock_have_plausible_times(seconds: int) -> None:
    world, time_us = Collected(), NOW_US + seconds * 1_000_000

    world.receive(BookUpdated("BTCUSDT", 1, time_us, BIDS, ASKS), received_us=NOW_US)

    assert [book.exchange_us for _, book in world.books] == [time_us]
    assert world.feed.counters.bad_times == 0


def test_what_is_ignored_is_counted_by_name() -> None:
    world = Collected()

    rest = world.receive(Ignored("BTCUSDT", "aggTrade"), Ignored("ETHUSDT", "aggTrade", 3), Ignored("", "ticker"))

    assert rest == []
    assert world.feed.counters.ignored == {"aggTrade": 4, "ticker": 1}


def test_names_from_outside_are_bounded() -> None:
    world = Collected()

    world.receive(*(Ignored("", f"{number}\x1b" + "x" * 1000) for number in range(60)))

    assert len(world.feed.counters.ignored) == 51
    assert world.feed.counters.ignored["others"] == 10
    assert all(name.isprintable() and len(name) <= 60 for name in world.feed.counters.ignored)


def test_only_what_concerns_the_connection_is_handed_back() -> None:
    world = Collected()
    of_the_connection = [Acknowledged(1), Refused(2, "no"), ClosingSoon("soon"), ResubscribeNeeded("BTCUSDT")]

    rest = world.receive(updated(), *of_the_connection, BookUnchanged("BTCUSDT", 2))

    assert rest == of_the_connection


def test_a_frame_that_makes_no_sense_is_skipped_and_the_next_one_taken() -> None:
    world = Collected()
    world.book_set.says.append(WebSocketProtocolError("no JSON"))

    assert world.feed.receive(b"{", 0, 1) == ()
    world.receive(updated(update_id=3))

    assert world.published == [(3, "live")]
    assert world.feed.counters.skipped == 1


def test_a_recorded_answer_that_makes_no_sense_is_skipped_and_counted() -> None:
    world = Collected()
    world.book_set.answers.append(WebSocketProtocolError("no depth"))

    world.feed.receive_recorded("http://venue/depth", b"", 1)

    assert (world.feed.counters.skipped, world.feed.counters.last_skipped) == (1, "no depth")


def test_a_snapshot_answer_that_makes_no_sense_is_the_askers_to_deal_with() -> None:
    world = Collected()
    world.book_set.answers.append(WebSocketProtocolError("no depth"))

    with pytest.raises(WebSocketProtocolError):
        world.feed.apply_snapshot("BTCUSDT", 100, b"", 1)

    assert world.feed.counters.skipped == 0


def test_a_lost_book_is_told_as_suspect_with_its_last_levels() -> None:
    world = Collected()
    world.receive(updated(update_id=1))

    world.receive(BookLost("BTCUSDT", "gap"), received_us=9_000_000)

    _, suspect = world.books[-1]
    assert (suspect.state, suspect.update_id, suspect.bids, suspect.asks) == ("suspect", 1, BIDS, ASKS)
    assert suspect.received_us == 9_000_000
    assert world.feed.states() == {"BTCUSDT": "suspect", "ETHUSDT": "syncing"}


def test_the_loss_of_a_book_that_never_was_is_counted_and_not_told() -> None:
    world = Collected()

    world.receive(BookLost("BTCUSDT", "gap"))

    assert world.books == []
    assert world.feed.counters.lost == 1


def test_a_lost_quote_leaves_the_book_live() -> None:
    world = Collected()
    world.receive(updated(update_id=1), updated(update_id=1, topic="quote"))

    world.receive(BookLost("BTCUSDT", "gap", "quote"))

    assert world.feed.latest["book", "BTCUSDT"].state == "live"
    assert world.feed.latest["quote", "BTCUSDT"].state == "suspect"


def test_a_doubted_book_is_published_as_suspect_and_live_again_once_trusted() -> None:
    world = Collected()
    world.receive(updated(update_id=1))
    world.receive(BookUnchanged("BTCUSDT", 5))

    world.feed.doubt("book", "BTCUSDT", 8_000_000)
    world.feed.doubt("book", "BTCUSDT", 8_500_000)
    world.feed.trust("book", "BTCUSDT", 9_000_000)
    world.feed.trust("book", "BTCUSDT", 9_500_000)

    assert world.published == [(1, "live"), (1, "suspect"), (5, "live")]
    assert world.books[-1][1].received_us == 9_000_000


def test_a_doubted_book_that_was_lost_meanwhile_is_not_trusted() -> None:
    world = Collected()
    world.receive(updated(update_id=1))
    world.feed.doubt("book", "BTCUSDT", 8_000_000)
    world.receive(BookLost("BTCUSDT", "gap"))
    world.book_set.ids["BTCUSDT", "book"] = None

    world.feed.trust("book", "BTCUSDT", 9_000_000)

    assert world.feed.latest["book", "BTCUSDT"].state == "suspect"


def test_the_end_of_a_connection_is_told_once_in_the_log_for_all_its_books(caplog: pytest.LogCaptureFixture) -> None:
    world = Collected()
    world.receive(updated(update_id=1), updated("ETHUSDT", 1))
    world.book_set.on_loss = [BookLost("BTCUSDT", "reset"), BookLost("ETHUSDT", "reset")]

    with caplog.at_level(logging.INFO, "bookbus.feeders.feed"):
        world.feed.line_down(0, "reset", 9_000_000)

    assert [record.getMessage() for record in caplog.records] == ["binance: 2 books lost: reset"]
    assert world.feed.losses == 1
    assert {book.state for book in world.feed.latest.values()} == {"suspect"}


def test_numbers_beyond_float64_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Collected().receive(PrecisionLost("BTCUSDT", "0.12345678901234567"))

    assert "0.12345678901234567" in caplog.text


def test_the_current_book_moves_on_with_unchanged_levels() -> None:
    world = Collected()
    world.receive(updated(update_id=1))

    world.receive(BookUnchanged("BTCUSDT", 5))

    assert world.published == [(1, "live")]
    assert world.feed.current("book", "BTCUSDT").update_id == 5
    assert world.feed.current("book", "BTCUSDT").bids == BIDS
    assert world.feed.latest["book", "BTCUSDT"].update_id == 1


def test_the_current_book_stays_at_its_id_once_it_is_suspect() -> None:
    world = Collected()
    world.receive(updated(update_id=1))
    world.receive(BookLost("BTCUSDT", "gap"))
    world.book_set.ids["BTCUSDT", "book"] = 9

    assert world.feed.current("book", "BTCUSDT").update_id == 1


def test_a_book_is_current_while_the_protocol_trusts_it() -> None:
    world = Collected()
    world.receive(updated(update_id=1))
    assert world.feed.is_current("book", "BTCUSDT")

    world.book_set.ids["BTCUSDT", "book"] = None

    assert not world.feed.is_current("book", "BTCUSDT")


def test_without_book_are_those_that_neither_have_one_nor_wait_for_an_answer() -> None:
    world = Collected("BTCUSDT", "ETHUSDT", "SOLUSDT")
    world.receive(updated("BTCUSDT"))
    world.snapshots.pending.add("ETHUSDT")

    assert world.feed.without_book() == ["SOLUSDT"]


def test_a_needed_snapshot_is_asked_for() -> None:
    world = Collected()

    world.receive(SnapshotNeeded("BTCUSDT", 100, True))

    assert world.snapshots.asked == [SnapshotNeeded("BTCUSDT", 100, True)]


def test_a_dropped_symbol_hands_back_its_books_and_takes_no_more() -> None:
    world = Collected()
    world.receive(updated(update_id=1), updated(update_id=2, topic="quote"), updated("ETHUSDT", 1))

    dropped = world.feed.drop("BTCUSDT")
    told = len(world.books)
    world.receive(updated(update_id=3), BookLost("BTCUSDT", "gap"))

    assert [(topic, book.update_id) for topic, book in dropped] == [("book", 1), ("quote", 2)]
    assert len(world.books) == told
    assert set(world.feed.latest) == {("book", "ETHUSDT")}


def test_for_a_dropped_symbol_nothing_is_asked_for_any_more() -> None:
    world = Collected()
    world.feed.drop("BTCUSDT")

    world.receive(SnapshotNeeded("BTCUSDT", 100, True))

    assert world.snapshots.asked == []
    assert world.feed.without_book() == ["ETHUSDT"]


def test_a_new_connection_subscribes_to_everything_but_what_was_dropped() -> None:
    world = Collected()
    world.feed.subscribe()
    world.feed.drop("BTCUSDT")
    world.feed.subscribe()
    world.feed.subscribe(["ETHUSDT"])

    assert world.book_set.asked == [None, ["ETHUSDT"], ["ETHUSDT"]]


def test_forgetting_leaves_no_book_and_tells_nothing() -> None:
    world = Collected()
    world.receive(updated(update_id=1))
    world.books.clear()

    world.feed.forget()
    world.receive(BookLost("BTCUSDT", "abandoned"))

    assert (world.feed.latest, world.books) == ({}, [])


def test_a_book_beyond_the_known_window_waits_for_the_answer_under_way() -> None:
    world = _holding()

    assert world.feed.latest["book", "BTCUSDT"].update_id == 1
    assert not world.feed.is_current("book", "BTCUSDT")


def test_a_book_that_waits_for_another_lines_update_is_not_current() -> None:
    world = Collected()
    world.receive(updated())
    assert world.feed.is_current("book", "BTCUSDT")

    world.book_set.behind.add("BTCUSDT")

    assert not world.feed.is_current("book", "BTCUSDT")


def test_the_quote_of_a_held_book_is_current() -> None:
    world = _holding()
    world.receive(updated(update_id=2, topic="quote"))

    assert world.feed.is_current("quote", "BTCUSDT")


def test_a_held_book_gives_way_to_the_one_the_answer_brings() -> None:
    world = _holding()

    world.answer(updated(update_id=3))

    assert world.published == [(1, "live"), (3, "live")]
    assert world.feed.is_current("book", "BTCUSDT")


def test_a_held_book_is_published_when_the_answer_leaves_it_as_it_is() -> None:
    world = _holding()

    world.answer(BookUnchanged("BTCUSDT", 3))

    assert [book.bids for _, book in world.books] == [BIDS, OTHER_BIDS]
    assert world.feed.current("book", "BTCUSDT").update_id == 3
    assert world.feed.is_current("book", "BTCUSDT")


def test_of_several_held_books_the_newest_is_published() -> None:
    world = _holding()
    newest = ((99.7, 1.0),)
    world.receive(updated(update_id=3, bids=newest))

    world.answer(BookUnchanged("BTCUSDT", 4))

    assert [book.bids for _, book in world.books] == [BIDS, newest]


def test_a_held_book_is_published_when_the_answer_is_too_old_to_tell() -> None:
    world = _holding()

    world.answer(SnapshotNeeded("BTCUSDT", 100, False))
    world.receive(BookUnchanged("BTCUSDT", 3))

    assert [book.bids for _, book in world.books] == [BIDS, OTHER_BIDS]
    assert world.feed.current("book", "BTCUSDT").bids == OTHER_BIDS


def test_a_held_book_stays_held_when_it_reaches_beyond_what_the_answer_covers_too() -> None:
    world = _holding()

    world.answer(*WINDOW_LEFT, BookUnchanged("BTCUSDT", 3))

    assert world.published == [(1, "live")]
    assert not world.feed.is_current("book", "BTCUSDT")


def test_a_held_book_that_the_answer_proves_wrong_is_never_published() -> None:
    world = _holding()

    world.answer(BookLost("BTCUSDT", "bids and asks cross"))

    assert [(book.state, book.bids) for _, book in world.books] == [("live", BIDS), ("suspect", BIDS)]


def test_a_book_beyond_the_window_is_published_at_once_where_nothing_will_answer() -> None:
    world = Collected()

    world.receive(*WINDOW_LEFT, updated(update_id=2))
    world.receive(updated(update_id=3))

    assert world.published == [(2, "live"), (3, "live")]


def test_the_hold_ends_with_the_next_book_when_the_answer_fails() -> None:
    world = _holding()
    world.snapshots.soon.clear()

    world.receive(updated(update_id=3))

    assert world.published == [(1, "live"), (3, "live")]
    assert world.feed.is_current("book", "BTCUSDT")


def test_a_loss_ends_the_hold() -> None:
    world = _holding()

    world.receive(BookLost("BTCUSDT", "gap"))
    world.receive(updated(update_id=9))

    assert world.published == [(1, "live"), (1, "suspect"), (9, "live")]


def test_other_symbols_are_published_while_one_is_held() -> None:
    world = _holding()

    world.receive(updated("ETHUSDT", 5))

    assert world.books[-1][1].symbol == "ETH-USDT"


def test_a_symbol_that_the_exchange_does_not_have_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = Collected()
    world.receive(updated("ETHUSDT"))

    for _ in range(2):
        world.feed.refuse("ETHUSDT", "handler not found")
    world.receive(updated("ETHUSDT", update_id=2))

    assert world.feed.states() == {"BTCUSDT": "syncing"}
    assert [book.state for _, book in world.books] == ["live", "closed"]
    assert caplog.text.count("binance does not have ETHUSDT, which is left out: handler not found") == 1


def test_a_symbol_without_a_known_name_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = Collected("BTCUSDT", "BTCPLN")
    world.feed.instrument_of = InstrumentRegistry(EXCHANGES["binance"], offline=True).named

    world.receive(updated("BTCPLN"), updated("BTCUSDT"))
    world.receive(updated("BTCPLN", update_id=2))

    assert [book.symbol for _, book in world.books] == ["BTC-USDT"]
    assert list(world.feed.unnamed) == ["BTCPLN"]
    assert world.feed.symbol_of("BTCPLN") is None
    assert caplog.text.count("left out: 'BTCPLN'") == 1


def test_a_book_beyond_a_shallow_snapshot_is_not_held_but_lost() -> None:
    world = _holding()

    world.answer(KnownWindowLeft("BTCUSDT", shallow=True), BookLost("BTCUSDT", "small"))

    assert [book.state for _, book in world.books] == ["live", "suspect"]
    assert world.feed.shallow == {"BTCUSDT"}
    assert world.feed.counters.windows_left == 2
