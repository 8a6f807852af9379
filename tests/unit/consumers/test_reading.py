"""The status of a book."""

import pytest

from bookbus.consumers.bus.books import FeederLife, ServerClock
from bookbus.consumers.reading import BookNotLiveError, ConnectionStatus, Observation, Reading, judge
from bookbus.schemas.snapshot import BookStatus, StoredState
from tests.support.builders import book


def status(
    state: StoredState = "live", age: float | None = 1.0, feeder_alive: bool | None = None, error: str = ""
) -> BookStatus:
    return judge(Observation(book(state=state), age, age, feeder_alive, error), 5.0)[0]


@pytest.mark.parametrize(
    ("state", "age", "feeder_alive", "expected"),
    [
        ("live", 5.0, None, BookStatus.LIVE),
        ("live", 5.0, False, BookStatus.LIVE),
        ("live", 5.1, None, BookStatus.STALE),
        ("live", 5.1, True, BookStatus.STALE),
        ("live", 5.1, False, BookStatus.FEEDER_DOWN),
        ("live", None, None, BookStatus.STALE),
        ("suspect", 0.0, True, BookStatus.SUSPECT),
        ("suspect", 60.0, False, BookStatus.FEEDER_DOWN),
        ("closed", 60.0, False, BookStatus.CLOSED),
    ],
)
def test_status_follows_from_state_age_and_feeder(
    state: StoredState, age: float | None, feeder_alive: bool | None, expected: BookStatus
) -> None:
    assert status(state, age, feeder_alive) is expected


def test_a_book_never_received_is_missing_with_the_error_as_reason() -> None:
    assert judge(Observation(error="not started"), 5.0) == (BookStatus.MISSING, "not started")


def test_only_a_live_book_has_no_reason() -> None:
    assert judge(Observation(book(), 1.0), 5.0) == (BookStatus.LIVE, "")
    assert judge(Observation(book(), 7.25, error="connection lost"), 5.0) == (
        BookStatus.STALE,
        "not confirmed for 7.2 s (limit 5 s); connection lost",
    )


def test_require_live_gives_the_book_or_raises_the_reason() -> None:
    live = book()

    assert Reading(live, BookStatus.LIVE, 0.1, "").require_live() is live
    with pytest.raises(BookNotLiveError, match="BTC: not confirmed"):
        Reading(live, BookStatus.STALE, 9.0, "BTC: not confirmed for 9.0 s").require_live()


def test_server_time_is_known_only_after_a_measure() -> None:
    assert ServerClock().local(1_000_000) is None


def test_the_quickest_answer_decides_about_the_servers_clock() -> None:
    clock = ServerClock()

    clock.measure(10.0, 10.4, 1_000_100_000)  # late answer: somewhere between 989.7 and 990.1
    clock.measure(20.0, 20.001, 1_010_000_500)  # 990.0 sharp

    assert clock.local(1_010_000_000) == pytest.approx(20.0)


def test_a_server_clock_that_was_set_is_believed_at_once() -> None:
    clock = ServerClock()
    clock.measure(10.0, 10.0001, 1_000_000_000)

    clock.measure(11.0, 11.1, 2_000_000_000)

    assert clock.local(2_000_000_000) == pytest.approx(11.05)


def test_a_feeder_is_alive_for_three_seconds_after_its_heartbeat() -> None:
    life = FeederLife()
    life.listen(0.0)
    life.receive("A", "binance", ["BTC-USDT"], 10.0)

    assert life.alive("A", "binance", "BTC-USDT", 13.0) is True
    assert life.alive("A", "binance", "BTC-USDT", 13.1) is False


def test_another_feeder_that_serves_the_book_keeps_it_from_being_orphaned() -> None:
    life = FeederLife()
    life.listen(0.0)
    life.receive("B", "binance", ["BTC-USDT"], 10.0)

    assert life.alive("A", "binance", "BTC-USDT", 11.0) is True
    assert life.alive("A", "binance", "ETH-USDT", 11.0) is False
    assert life.alive("A", "upbit", "BTC-USDT", 11.0) is False


def test_reconnects_of_feeders_count_from_their_first_heartbeats() -> None:
    life = FeederLife()
    for feeder, exchange, counts in (
        ("A", "binance", [5, 5, 6, 8]),
        ("B", "binance", [0, 1]),
        ("C", "upbit", [2, 4]),
        ("old", "binance", [None]),
    ):
        for count in counts:
            life.receive(feeder, exchange, ["BTC-USDT"], 1.0, count)

    assert (life.reconnects("binance"), life.reconnects("upbit"), life.reconnects("bybit")) == (4, 2, 0)


def test_nobody_is_declared_dead_before_a_heartbeat_could_have_been_heard() -> None:
    life = FeederLife()

    assert life.alive("A", "binance", "BTC-USDT", 100.0) is None

    life.listen(100.0)

    assert life.alive("A", "binance", "BTC-USDT", 103.0) is None
    assert life.alive("A", "binance", "BTC-USDT", 103.1) is False


def test_the_earlier_name_of_a_connections_error_still_works() -> None:
    status = ConnectionStatus(
        is_running=True, connected=False, thread_alive=True, reconnect_count=0, error="refused", symbols={}
    )

    assert status.trouble == status.error == "refused"
    assert Observation(error="refused").trouble == "refused"
