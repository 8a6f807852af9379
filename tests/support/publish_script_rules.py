"""Tests of the publish script on any server: a test class inherits them and provides the fixture `bus`."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from bookbus.feeders.bus.publish_script import ACCEPTED, CLAIMED, CONFIRMED, REFUSED, script_text
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot, StoredState
from bookbus.schemas.wire import decode, encode_body
from tests.support.builders import book

NAME = "md:book:binance:BTC-USDT"
FIELDS = [
    "seq",
    "update_id",
    "state",
    "feeder",
    "published_us",
    "confirmed_us",
    "twin_us",
    "bid",
    "bid_qty",
    "ask",
    "ask_qty",
    "book",
]

DEEP = ("live", "diff", 20)
SHALLOW = ("live", "partial", 5)
"""Two claims on a book."""


class Bus:
    """Calls the script on one server like a feeder."""

    def __init__(self, client: "redis.Redis", *, sharded: bool = False, database: int = 0) -> None:
        self.client: Any = client
        self.sha: str = client.script_load(script_text(sharded=sharded, database=database).decode())

    def submit(
        self,
        kind: str,
        feeder: str,
        update_id: int,
        state: str = "",
        name: str = NAME,
        *,
        claim: Sequence[object] = (),
        highest: int | None = None,
    ) -> int:
        """Submit a book, by default a live one. `claim` is network, mode and depth."""
        stored: StoredState = state or "live"  # type: ignore[assignment]
        more = [*(claim or ("", "", "")), highest] if highest is not None else claim
        return self.submit_book(kind, book(update_id=update_id, state=stored, feeder=feeder), name, more)

    def submit_book(
        self, kind: str, submitted: OrderBookSnapshot, name: str = NAME, more: Sequence[object] = ()
    ) -> int:
        """`more` are the arguments after the body."""
        bid, ask = (side[0] if side else ("", "") for side in (submitted.bids, submitted.asks))
        body = encode_body(submitted, submitted.feeder, submitted.published_us)
        arguments: list[Any] = [kind, submitted.feeder, submitted.update_id, submitted.state, submitted.published_us]
        reply: int = self.client.evalsha(self.sha, 1, name, *arguments, *bid, *ask, body, *more)
        return reply

    def stored(self, name: str = NAME) -> OrderBookSnapshot:
        data: bytes = self.client.hget(name, "book")
        return decode(data)

    def field(self, field: str, name: str = NAME) -> str:
        value: bytes = self.client.hget(name, field)
        return value.decode()

    def set(self, **fields: object) -> None:
        self.client.hset(NAME, mapping={name: str(value) for name, value in fields.items()})

    def confirmed(self, seconds: float) -> None:
        """Let the last confirmation be so many seconds ago."""
        self.set(confirmed_us=self.server_us() - round(seconds * 1e6))

    def heard(self, feeder: str, seconds: float) -> None:
        """Let this be the only other feeder, heard so many seconds ago."""
        self.set(others=f"{self.server_us() - round(seconds * 1e6)} {feeder}\n")

    def claim(self) -> list[str]:
        return [self.field(field) for field in ("network", "mode", "depth")]

    def server_us(self) -> int:
        seconds, microseconds = self.client.time()
        return int(seconds) * 1_000_000 + int(microseconds)


class PublishScriptRules:
    """Inherited by a class that has a fixture `bus`."""

    def test_replies_to_a_long_sequence_of_submissions(self, bus: Bus) -> None:
        assert bus.submit("state", "A", 100, "suspect") == REFUSED
        assert not bus.client.exists(NAME)
        assert bus.submit("new", "A", 100) == ACCEPTED
        first = bus.stored().seq
        assert bus.submit("new", "B", 100) == CONFIRMED
        assert bus.submit("new", "B", 101) == ACCEPTED
        assert bus.submit("new", "A", 101) == CONFIRMED
        assert bus.submit("state", "B", 101, "suspect") == REFUSED
        assert bus.submit("state", "A", 101, "suspect") == REFUSED
        bus.set(twin_us=1)
        assert bus.submit("state", "A", 101, "suspect") == ACCEPTED
        assert bus.submit("again", "B", 101) == ACCEPTED
        assert bus.submit("again", "B", 101) == CONFIRMED
        assert bus.submit("new", "C", 50) == REFUSED
        bus.set(confirmed_us=1)
        assert bus.submit("new", "C", 50) == ACCEPTED
        bus.set(twin_us=1)
        assert bus.submit("state", "C", 50, "closed") == ACCEPTED
        assert 86_390 <= bus.client.ttl(NAME) <= 86_400
        assert bus.submit("new", "D", 40) == ACCEPTED
        assert bus.client.ttl(NAME) == -1

        last = bus.stored()
        assert (last.state, last.update_id, last.feeder, last.seq) == ("live", 40, "D", first + 6)

    def test_the_hash_is_readable_text_but_for_the_book(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        fields: dict[bytes, bytes] = bus.client.hgetall(NAME)

        assert sorted(field.decode() for field in fields) == sorted(FIELDS)
        stored = bus.stored()
        readable = {field.decode(): value.decode() for field, value in fields.items() if field != b"book"}
        assert readable == {
            "seq": str(stored.seq),
            "update_id": "100",
            "state": "live",
            "feeder": "A",
            "published_us": str(stored.published_us),
            "confirmed_us": str(stored.seq),
            "twin_us": "0",
            "bid": "99.5",
            "bid_qty": "1.0",
            "ask": "100.5",
            "ask_qty": "1.5",
        }

    def test_the_stored_book_is_the_submitted_one_with_its_seq(self, bus: Bus) -> None:
        submitted = book(update_id=7, feeder="A")

        bus.submit_book("new", submitted)

        assert bus.stored() == book(update_id=7, feeder="A", seq=int(bus.field("seq")))

    def test_the_first_seq_is_the_servers_clock(self, bus: Bus) -> None:
        before = bus.server_us()

        bus.submit("new", "A", 1)

        assert before <= bus.stored().seq <= bus.server_us()

    def test_seq_goes_on_rising_after_the_data_was_lost(self, bus: Bus) -> None:
        for update_id in range(1, 20):
            bus.submit("new", "A", update_id)
        before = bus.stored().seq

        bus.client.flushdb()
        bus.submit("new", "A", 20)

        assert bus.stored().seq > before

    @pytest.mark.parametrize("seq", [1, 255, 256, 2**32 - 1, 2**40 + 77, 1_799_999_999_999_999, 2**53 - 2])
    def test_every_seq_is_eight_bytes_in_the_message_and_the_same_in_the_hash(self, bus: Bus, seq: int) -> None:
        bus.submit("new", "A", 1)
        bus.set(seq=seq)

        bus.submit("new", "A", 2)

        assert bus.stored().seq == seq + 1
        assert bus.field("seq") == str(seq + 1)

    def test_large_ids_and_times_stay_exact(self, bus: Bus) -> None:
        largest = 2**53 - 1

        bus.submit("new", "A", largest - 1)

        assert bus.submit("new", "B", largest) == ACCEPTED
        assert bus.field("update_id") == str(largest)
        assert abs(int(bus.field("confirmed_us")) - bus.server_us()) < 5_000_000

    def test_only_accepted_books_are_published_with_the_stored_bytes(self, bus: Bus) -> None:
        with bus.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(NAME)
            channel.get_message(timeout=1)
            bus.submit("new", "A", 100)
            first = bus.client.hget(NAME, "book")
            bus.submit("new", "B", 100)
            bus.submit("new", "B", 99)
            bus.submit("new", "A", 101)
            second = bus.client.hget(NAME, "book")

            assert messages(channel, 2) == [first, second]
            assert channel.get_message(timeout=0.02) is None

    def test_a_confirmation_says_when_and_changes_nothing_else(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        before: dict[bytes, bytes] = bus.client.hgetall(NAME)
        bus.set(confirmed_us=5)

        assert bus.submit("again", "A", 100) == CONFIRMED

        after: dict[bytes, bytes] = bus.client.hgetall(NAME)
        assert int(after.pop(b"confirmed_us")) >= int(before.pop(b"confirmed_us"))
        assert after == before

    def test_a_twins_confirmation_makes_it_the_line_behind_the_book(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.set(confirmed_us=5)

        bus.submit("again", "B", 100)

        assert (bus.field("feeder"), bus.field("twin_us")) == ("B", "5")
        assert int(bus.field("confirmed_us")) >= bus.stored().seq
        assert bus.stored().feeder == "A"

    def test_a_twins_newer_book_remembers_when_the_other_was_heard(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.set(confirmed_us=5)

        bus.submit("new", "B", 101)

        assert (bus.field("feeder"), bus.field("twin_us")) == ("B", "5")

    def test_the_same_line_leaves_the_twins_time_alone(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.set(twin_us=5)

        bus.submit("new", "A", 101)

        assert bus.field("twin_us") == "5"

    def test_two_books_with_one_id_from_one_line_are_both_taken(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit_book("new", book(update_id=100, feeder="A", bids=((98.0, 3.0),))) == ACCEPTED

        assert bus.stored().bids == ((98.0, 3.0),)

    @pytest.mark.parametrize("order", ["AABB", "ABAB", "ABBA"])
    def test_of_two_books_with_one_id_from_two_lines_the_second_stays(self, bus: Bus, order: str) -> None:
        waiting = {feeder: [9.0, 9.5] for feeder in order}

        bids = []
        for feeder in order:
            submitted = book(update_id=100, feeder=feeder, bids=((waiting[feeder].pop(0), 1.0),))
            bus.submit_book("new", submitted)
            bids.append(bus.stored().bids[0][0])

        assert bids == sorted(bids)
        assert bids[-1] == 9.5

    @pytest.mark.parametrize(("seconds", "reply"), [(2, REFUSED), (4, ACCEPTED)])
    def test_other_levels_at_one_id_are_no_confirmation(self, bus: Bus, seconds: int, reply: int) -> None:
        bus.submit_book("new", book(update_id=100, feeder="A", bids=((9.0, 1.0), (8.0, 1.0))))
        bus.set(confirmed_us=bus.server_us() - seconds * 1_000_000)

        other = book(update_id=100, feeder="B", bids=((9.0, 1.0), (8.0, 2.0)))

        assert bus.submit_book("again", other) == reply
        assert bus.field("feeder") == ("A" if reply == REFUSED else "B")

    def test_a_late_book_of_a_twin_is_refused_but_heard(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("new", "B", 99) == REFUSED

        assert int(bus.field("twin_us")) >= bus.stored().seq
        assert bus.submit("state", "A", 100, "suspect") == REFUSED

    def test_a_late_book_of_the_same_line_is_refused_and_no_twin(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("new", "A", 99) == REFUSED

        assert bus.field("twin_us") == "0"

    def test_a_feeder_without_a_twin_marks_its_book_suspect_once(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("state", "A", 100, "suspect") == ACCEPTED
        assert bus.submit("state", "A", 100, "suspect") == REFUSED

        assert bus.stored().state == "suspect"
        assert bus.field("state") == "suspect"

    def test_a_feeder_that_did_not_write_the_book_cannot_mark_it_suspect(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("state", "B", 100, "suspect") == REFUSED

        assert bus.stored().state == "live"

    def test_without_a_book_suspect_is_refused(self, bus: Bus) -> None:
        bus.set(feeder="A", state="live")

        assert bus.submit("state", "A", 100, "suspect") == REFUSED

    @pytest.mark.parametrize(("seconds", "reply"), [(2, REFUSED), (4, ACCEPTED)])
    def test_a_twin_counts_for_three_seconds(self, bus: Bus, seconds: int, reply: int) -> None:
        bus.submit("new", "A", 100)
        bus.set(twin_us=bus.server_us() - seconds * 1_000_000)

        assert bus.submit("state", "A", 100, "suspect") == reply

    @pytest.mark.parametrize(("seconds", "reply"), [(8, REFUSED), (12, ACCEPTED)])
    def test_for_ten_seconds_a_book_belongs_to_the_feeder_that_confirmed_it(
        self, bus: Bus, seconds: int, reply: int
    ) -> None:
        bus.submit("new", "A", 100)
        bus.set(confirmed_us=bus.server_us() - seconds * 1_000_000)

        assert bus.submit("new", "B", 50) == reply

    def test_a_missing_time_counts_as_long_ago(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.client.hdel(NAME, "confirmed_us", "twin_us")

        assert bus.submit("new", "B", 50) == ACCEPTED
        assert bus.field("twin_us") == "0"

        bus.client.hdel(NAME, "twin_us")
        bus.submit("new", "B", 51)

        assert bus.field("twin_us") == "0"

    def test_a_line_whose_ids_start_again_goes_on_after_it_said_suspect(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.submit("state", "A", 100, "suspect")

        assert bus.submit("new", "B", 5) == REFUSED
        assert bus.submit("new", "A", 5) == ACCEPTED

    def test_the_line_behind_a_book_takes_its_twin_along_when_ids_start_again(self, bus: Bus) -> None:
        bus.submit("new", "B", 100)
        bus.submit("new", "A", 101)
        assert bus.submit("state", "A", 101, "suspect") == REFUSED

        assert bus.submit("new", "B", 1) == REFUSED
        assert bus.submit("new", "A", 1) == ACCEPTED
        assert bus.submit("new", "B", 2) == ACCEPTED
        assert bus.submit("new", "A", 2) == CONFIRMED

    def test_below_half_the_ids_start_again(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("new", "A", 49) == ACCEPTED

    def test_a_feeder_with_the_old_ids_is_accepted_again_once_it_has_the_new_ones(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.submit("new", "A", 1)

        assert bus.submit("new", "B", 101) == ACCEPTED
        assert bus.submit("new", "A", 2) == REFUSED
        assert bus.submit("new", "B", 2) == ACCEPTED

    @pytest.mark.parametrize(("kind", "feeder", "update_id"), [("new", "A", 50), ("again", "A", 1), ("new", "B", 1)])
    def test_ids_start_again_only_far_below_and_for_the_line_behind_the_book(
        self, bus: Bus, kind: str, feeder: str, update_id: int
    ) -> None:
        bus.submit("new", "B", 99)
        bus.submit("new", "A", 100)

        assert bus.submit(kind, feeder, update_id) == REFUSED

    def test_a_claim_is_stored_beside_the_book(self, bus: Bus) -> None:
        bus.submit("new", "A", 100, claim=DEEP)
        bus.submit("new", "A", 101, claim=DEEP)

        fields: dict[bytes, bytes] = bus.client.hgetall(NAME)

        assert sorted(field.decode() for field in fields) == sorted([*FIELDS, "network", "mode", "depth"])
        assert bus.claim() == ["live", "diff", "20"]

    @pytest.mark.parametrize(
        "other",
        [("live", "diff", 5), ("live", "partial", 20), ("testnet", "diff", 20), ("simulator", "partial", 5)],
    )
    @pytest.mark.parametrize(("kind", "update_id"), [("new", 99), ("new", 100), ("again", 100), ("new", 101)])
    def test_a_feeder_with_another_claim_is_refused(
        self, bus: Bus, other: Sequence[object], kind: str, update_id: int
    ) -> None:
        bus.submit("new", "A", 100, claim=DEEP)
        before = bus.stored()

        assert bus.submit(kind, "B", update_id, claim=other) == CLAIMED

        assert bus.stored() == before
        assert (bus.field("feeder"), bus.field("twin_us"), bus.claim()) == ("A", "0", ["live", "diff", "20"])
        assert bus.submit("new", "A", 102, claim=DEEP) == ACCEPTED
        assert bus.submit("state", "A", 102, "suspect") == ACCEPTED, "the other one is no twin"

    @pytest.mark.parametrize("other", [(), ("", "", ""), ("live", "", ""), ("", "diff", ""), ("live", "diff", "20")])
    def test_what_a_claim_leaves_open_is_not_compared(self, bus: Bus, other: Sequence[object]) -> None:
        bus.submit("new", "A", 100, claim=DEEP)

        assert bus.submit("again", "B", 100, claim=other) == CONFIRMED
        assert bus.submit("new", "B", 101, claim=other) == ACCEPTED
        assert bus.submit("new", "A", 102, claim=DEEP) == ACCEPTED
        assert bus.claim() == ["live", "diff", "20"]

    @pytest.mark.parametrize("update_id", [100, 101])
    def test_a_book_without_a_claim_is_claimed_by_the_next_feeder(self, bus: Bus, update_id: int) -> None:
        bus.submit("new", "A", 100)

        assert bus.submit("again", "B", update_id, claim=DEEP) in (CONFIRMED, ACCEPTED)

        assert bus.claim() == ["live", "diff", "20"]
        assert bus.submit("new", "C", 102, claim=SHALLOW) == CLAIMED

    @pytest.mark.parametrize(("seconds", "reply"), [(4, CLAIMED), (8, CLAIMED), (12, ACCEPTED)])
    @pytest.mark.parametrize("update_id", [50, 100, 150])
    def test_a_claim_lasts_for_ten_seconds_without_a_confirmation(
        self, bus: Bus, seconds: int, reply: int, update_id: int
    ) -> None:
        bus.submit("new", "A", 100, claim=DEEP)
        bus.confirmed(seconds)

        assert bus.submit("again", "B", update_id, claim=SHALLOW) == reply

        if reply == ACCEPTED:
            assert (bus.field("feeder"), bus.claim()) == ("B", ["live", "partial", "5"])
            assert bus.submit("new", "A", 151, claim=DEEP) == CLAIMED

    def test_a_suspect_book_stays_claimed_and_a_closed_one_does_not(self, bus: Bus) -> None:
        bus.submit("new", "A", 100, claim=DEEP)
        bus.submit("state", "A", 100, "suspect", claim=DEEP)

        assert bus.submit("new", "B", 101, claim=SHALLOW) == CLAIMED
        bus.submit("new", "A", 101, claim=DEEP)
        bus.set(rival="")
        bus.submit("state", "A", 101, "closed", claim=DEEP)

        assert bus.submit("new", "C", 5, claim=SHALLOW) == ACCEPTED
        assert bus.claim() == ["live", "partial", "5"]

    @pytest.mark.parametrize("update_id", [101, 102])
    def test_a_feeder_that_stops_leaves_its_book_to_one_that_waits(self, bus: Bus, update_id: int) -> None:
        bus.submit("new", "A", 101, claim=DEEP)
        assert bus.submit("new", "B", update_id, claim=SHALLOW) == CLAIMED

        assert bus.submit("state", "A", 101, "closed", claim=DEEP) == REFUSED

        assert bus.stored().state == "live"
        assert bus.submit("again", "B", 100, claim=SHALLOW) == REFUSED, "no older book after a newer one"
        other = book(update_id=update_id, feeder="B", bids=((9.0, 1.0),))
        assert bus.submit_book("again", other, more=SHALLOW) == ACCEPTED
        assert (bus.stored().feeder, bus.claim()) == ("B", ["live", "partial", "5"])

    def test_nobody_waits_who_has_stopped_or_was_not_heard_for_three_seconds(self, bus: Bus) -> None:
        bus.submit("new", "A", 101, claim=DEEP)
        bus.submit("new", "B", 101, claim=SHALLOW)
        bus.submit("state", "B", 101, "closed", claim=SHALLOW)

        assert bus.submit("state", "A", 101, "closed", claim=DEEP) == ACCEPTED

        bus.submit("new", "A", 101, claim=DEEP)
        bus.set(rival=f"{bus.server_us() - 4_000_000} B")
        assert bus.submit("state", "A", 101, "closed", claim=DEEP) == ACCEPTED

    def test_of_a_pair_that_stops_the_last_one_closes_the_book(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.submit("new", "B", 100)
        assert bus.submit("state", "A", 100, "closed") == REFUSED

        assert bus.stored().state == "live"
        assert bus.submit("state", "B", 100, "closed") == ACCEPTED

        bus.submit("new", "A", 101)
        bus.submit("new", "B", 101)
        assert bus.submit("state", "B", 101, "closed") == REFUSED
        assert bus.field("feeder") == "A"
        assert bus.submit("state", "A", 101, "closed") == ACCEPTED

    @pytest.mark.parametrize("order", ["AB", "BA"])
    @pytest.mark.parametrize("kind", ["new", "again"])
    def test_lower_ids_are_accepted_once_those_of_both_feeders_fell(self, bus: Bus, order: str, kind: str) -> None:
        bus.submit("new", "A", 1000)
        bus.submit("new", "B", 1000)

        assert bus.submit(kind, order[0], 950, highest=1000) == REFUSED
        assert bus.submit(kind, order[0], 951, highest=1000) == REFUSED, "the same feeder again"
        assert bus.submit(kind, order[1], 950, highest=1000) == ACCEPTED
        assert bus.submit(kind, order[0], 952, highest=1000) == ACCEPTED

        assert (bus.stored().update_id, bus.field("feeder")) == (952, order[0])

    def test_of_three_feeders_the_ids_of_all_must_have_fallen(self, bus: Bus) -> None:
        for feeder in "ABC":
            bus.submit("new", feeder, 1000)

        assert bus.submit("new", "A", 950, highest=1000) == REFUSED
        assert bus.submit("new", "C", 950, highest=1000) == REFUSED
        assert bus.submit("new", "B", 950, highest=1000) == ACCEPTED

    def test_a_feeder_that_confirms_the_book_voids_what_others_said_of_their_ids(self, bus: Bus) -> None:
        bus.submit("new", "A", 1000)
        bus.submit("new", "B", 1000)
        bus.submit("new", "A", 950, highest=1000)
        bus.submit("again", "B", 1000)

        assert bus.submit("new", "B", 950, highest=1000) == REFUSED
        assert bus.submit("again", "A", 951, highest=1000) == ACCEPTED

    @pytest.mark.parametrize(("seconds", "reply"), [(1, REFUSED), (4, ACCEPTED)])
    def test_a_feeder_that_fell_silent_is_not_waited_for(self, bus: Bus, seconds: int, reply: int) -> None:
        bus.submit("new", "B", 1000)
        bus.submit("new", "A", 1001)
        bus.heard("B", seconds)

        assert bus.submit("new", "A", 950, highest=1001) == reply

    def test_one_feeder_never_takes_the_book_back_alone(self, bus: Bus) -> None:
        """Whether it is the stored one or not, and whether the other one is ahead, equal or always later."""
        bus.submit("new", "A", 1000)
        bus.submit("new", "B", 1000)
        for feeder in "ABA":
            assert bus.submit("new", feeder, 990) == REFUSED
        assert bus.submit("new", "A", 990, highest=1000) == REFUSED
        bus.submit("new", "B", 1001)
        assert bus.submit("new", "B", 990, highest=1001) == REFUSED

    def test_a_feeder_that_is_always_later_counts_too(self, bus: Bus) -> None:
        bus.submit("new", "A", 1000)
        for update_id in range(1001, 1004):
            bus.submit("new", "A", update_id)
            assert bus.submit("new", "B", update_id - 1) == REFUSED

        assert bus.submit("new", "A", 995, highest=1003) == REFUSED
        assert bus.submit("new", "B", 1004) == ACCEPTED

    def test_a_feeder_that_started_after_the_ids_fell_is_not_waited_for(self, bus: Bus) -> None:
        bus.submit("new", "A", 1000)
        assert bus.submit("new", "C", 950) == REFUSED
        assert bus.submit("new", "C", 951) == REFUSED

        assert bus.submit("new", "A", 951, highest=1000) == ACCEPTED

    def test_a_feeder_whose_ids_fell_below_the_new_ones_has_no_say(self, bus: Bus) -> None:
        """It is only late after the others went on with the new ids."""
        bus.submit("new", "A", 1000)
        bus.submit("new", "B", 1000)
        bus.submit("new", "A", 950, highest=1000)
        bus.submit("new", "B", 950, highest=1000)
        bus.submit("new", "B", 960)

        assert bus.submit("new", "A", 955, highest=1000) == REFUSED
        assert bus.submit("new", "B", 952, highest=960) == REFUSED

    def test_names_of_feeders_are_no_patterns(self, bus: Bus) -> None:
        bus.submit("new", "a-1.%d", 1000)
        bus.submit("new", "b c", 1000)
        bus.submit("new", "a-1.%d", 1000)

        assert bus.submit("state", "b c", 1000, "closed") == REFUSED
        assert bus.submit("new", "a-1.%d", 950, highest=1000) == ACCEPTED

    def test_a_closed_book_expires_in_a_day_unless_it_is_taken_up_again(self, bus: Bus) -> None:
        bus.submit("new", "A", 100)
        bus.submit("state", "A", 100, "closed")
        expires = bus.client.ttl(NAME)

        assert bus.submit("new", "B", 100) == ACCEPTED

        assert 86_390 <= expires <= 86_400
        assert bus.client.ttl(NAME) == -1

    def test_a_side_without_levels_has_no_best_price(self, bus: Bus) -> None:
        bus.submit_book("new", book(bids=(), asks=((100.5, 1.5),), feeder="A"))

        assert [bus.field(field) for field in ("bid", "bid_qty", "ask", "ask_qty")] == ["", "", "100.5", "1.5"]

    def test_every_name_has_its_own_count(self, bus: Bus) -> None:
        quote = "md:quote:binance:BTC-USDT"
        bus.submit("new", "A", 100)
        bus.submit("new", "A", 101)

        assert bus.submit("new", "A", 50, name=quote) == ACCEPTED

        assert bus.stored(quote).update_id == 50
        assert bus.stored().update_id == 101

    @pytest.mark.parametrize("fields", [{"color": "blue"}, {"seq": "many", "update_id": "x"}, {"update_id": "9"}])
    def test_a_hash_of_another_program_is_overwritten_by_the_book(self, bus: Bus, fields: dict[str, str]) -> None:
        bus.set(**fields)

        assert bus.submit("new", "A", 5) == ACCEPTED

        assert bus.stored().update_id == 5

    def test_a_key_of_another_type_is_an_error_and_stays(self, bus: Bus) -> None:
        bus.client.set(NAME, "mine")

        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            bus.submit("new", "A", 5)

        assert bus.client.get(NAME) == b"mine"

    @pytest.mark.parametrize("prefix", ["md", "paper-2", "it's"])
    def test_outside_of_database_0_it_publishes_on_the_channel_with_the_number(self, bus: Bus, prefix: str) -> None:
        names = RedisNames(prefix, 12)
        name = names.book("binance", "BTC-USDT")
        in_database = Bus(bus.client, database=12)
        with bus.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(name, names.channel(name))
            channel.get_message(timeout=1)
            channel.get_message(timeout=1)

            in_database.submit("new", "A", 100, name=name)

            assert messages(channel, 1) == [bus.client.hget(name, "book")]
            assert channel.get_message(timeout=0.02) is None

    def test_in_a_cluster_it_publishes_on_the_sharded_channel(self, bus: Bus) -> None:
        sharded = Bus(bus.client, sharded=True)
        with bus.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.ssubscribe(NAME)
            channel.get_sharded_message(timeout=1)

            sharded.submit("new", "A", 100)

            assert messages(channel, 1) == [bus.client.hget(NAME, "book")]


def messages(channel: Any, count: int) -> list[bytes]:
    """The data of the next `count` messages."""
    found: list[bytes] = []
    deadline = time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        if message := channel.get_message(timeout=0.1):
            found.append(message["data"])
    return found
