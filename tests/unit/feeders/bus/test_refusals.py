"""Which books are refused, and why."""

from collections.abc import Sequence

import pytest

from bookbus.feeders.bus.connection import Reply
from bookbus.feeders.bus.publish_script import CLAIMED, REFUSED, BookClaim, BookKey, Submission, SubmissionKind
from bookbus.feeders.bus.refusals import BEHIND_AFTER, Refusals
from tests.support.builders import book

OWN = BookClaim("live", "diff", 5)


class World:
    """A feeder's books, and what the server has of them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.unaccepted: dict[BookKey, Reply] = {}
        self.refusals = Refusals(OWN, self.unaccepted, clock=lambda: self.now)

    def refuse(self, reply: int, own_id: int, symbol: str = "BTC-USDT", kind: SubmissionKind = "new") -> BookKey:
        key = next((key for key in self.unaccepted if key.symbol == symbol), None)
        key = key or BookKey(f"md:book:binance:{symbol}", "B", "sha", symbol=symbol, claim=OWN)
        key.newest = Submission(kind, "book", book(update_id=own_id))
        self.unaccepted[key] = reply
        return key

    def look(self, *values: str | None) -> dict[str, str]:
        """Each refused book has these fields on the server."""
        fields: Sequence[str | None] = values
        self.refusals.learn([(key, fields) for key in self.refusals.to_look_up()])
        return self.refusals.reasons


@pytest.fixture
def world() -> World:
    return World()


def test_a_book_of_another_shape_names_its_feeder_and_both_shapes(world: World) -> None:
    world.refuse(CLAIMED, 7)

    assert world.look("9", "A", "live", "diff", "20") == {
        "BTC-USDT": "feeder A publishes it with network live, mode diff, depth 20, "
        "this feeder has network live, mode diff, depth 5"
    }


def test_a_quote_is_reported_under_its_symbol_as_a_quote(world: World) -> None:
    key = BookKey("md:quote:binance:BTC-USDT", "B", "sha", topic="quote", symbol="BTC-USDT", claim=OWN)
    world.unaccepted[key] = CLAIMED

    assert world.look("9", "A", "testnet", "", "1") == {
        "BTC-USDT": "quote: feeder A publishes it with network testnet, depth 1, this feeder has network live, depth 1"
    }


def test_a_book_that_is_accepted_again_is_refused_no_more(world: World) -> None:
    key = world.refuse(CLAIMED, 7)
    world.look("9", "A", "live", "diff", "20")

    del world.unaccepted[key]

    assert world.refusals.reasons == {}
    assert list(world.refusals.to_look_up()) == []


def test_a_twin_that_is_always_second_is_not_refused(world: World) -> None:
    reported = []
    for stored_id in range(1000, 1100):
        world.refuse(REFUSED, stored_id - 1)
        reported.append(world.look(str(stored_id), "A", "live", "diff", "5"))
        world.now += 1

    assert reported == [{}] * 100


@pytest.mark.parametrize("lag", [BEHIND_AFTER + 3, 1000])
def test_a_feeder_whose_ids_never_reach_the_stored_ones_is_refused(world: World, lag: float) -> None:
    seconds = round(BEHIND_AFTER) + 1
    for second in range(seconds):
        world.refuse(REFUSED, 1000 + second - round(lag))
        reported = world.look(str(1000 + second), "A", "live", "diff", "5")
        world.now += 1

    own = 1000 + seconds - 1 - round(lag)
    assert reported == {
        "BTC-USDT": f"its update id {own} does not reach 1000, which feeder A published {BEHIND_AFTER:.0f} s ago"
    }
    world.refuse(REFUSED, 1001)
    assert world.look("1009", "A", "live", "diff", "5") == {}


def test_a_lost_book_is_not_behind(world: World) -> None:
    for _ in range(20):
        world.refuse(REFUSED, 5, kind="state")
        assert world.look("1000", "A", "live", "diff", "5") == {}
        world.now += 1


def test_all_books_are_looked_up_in_turn(world: World) -> None:
    for number in range(250):
        world.refuse(CLAIMED, 1, f"S{number}-USDT")

    counts = []
    for _ in range(3):
        counts.append(len(world.look("9", "A", "live", "diff", "20")))
        world.now += 1

    assert counts == [100, 200, 250]


def test_refusals_and_their_end_are_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.refuse(CLAIMED, 1, "A-USDT")
    world.refuse(CLAIMED, 1, "B-USDT")
    for _ in range(5):
        world.look("9", "A", "live", "diff", "20")
        world.refusals.check_recovered()
    world.unaccepted.clear()
    for _ in range(5):
        world.look()
        world.refusals.check_recovered()

    assert [record.getMessage() for record in caplog.records] == [
        "2 books are refused: A-USDT, B-USDT: feeder A publishes it with network live, mode diff, depth 20, "
        "this feeder has network live, mode diff, depth 5",
        "no book is refused any more",
    ]


@pytest.mark.parametrize("values", [(None,) * 5, ("x", "A", "", "", "many")])
def test_a_hash_that_is_gone_or_of_another_program_is_no_error(world: World, values: tuple[str | None, ...]) -> None:
    world.refuse(CLAIMED, 1)

    assert list(world.look(*values)) == ["BTC-USDT"]
