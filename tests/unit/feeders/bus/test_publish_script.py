"""The publish script on fakeredis, and the commands that call it."""

import fakeredis
import hiredis
import pytest

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.publish_script import (
    BookClaim,
    BookKey,
    Submission,
    SubmissionKind,
    load_command,
    script_sha,
    script_text,
)
from bookbus.schemas.wire import HEAD, decode
from tests.support.builders import book
from tests.support.publish_script_rules import Bus, PublishScriptRules


class TestOnFakeredis(PublishScriptRules):
    @pytest.fixture
    def bus(self) -> Bus:
        return Bus(fakeredis.FakeRedis(server=fakeredis.FakeServer()))


def parsed(command: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(command)
    return reader.gets()


def test_a_packed_submission_is_the_scripts_command() -> None:
    key = BookKey("md:book:upbit:BTC-KRW", "feeder-é", "sha")
    submitted = book("BTC-KRW", exchange="upbit", update_id=7, bids=((0.1, 2.0),), asks=())

    command = parsed(key.pack(Submission("again", "book", submitted), 1_700_000_000_000_123))

    assert isinstance(command, list)
    assert command[14:] == [b"", b"", b""]
    assert command[:13] == [
        *(b"EVALSHA", b"sha", b"1", b"md:book:upbit:BTC-KRW"),
        *(b"again", "feeder-é".encode(), b"7", b"live", b"1700000000000123"),
        *(b"0.1", b"2.0", b"", b""),
    ]
    assert decode(HEAD + bytes(8) + command[13]) == book(
        "BTC-KRW",
        exchange="upbit",
        update_id=7,
        bids=((0.1, 2.0),),
        asks=(),
        feeder="feeder-é",
        published_us=1_700_000_000_000_123,
    )


def arguments_after_the_body(key: BookKey, kind: SubmissionKind, update_id: int) -> list[bytes]:
    command = parsed(key.pack(Submission(kind, "book", book(update_id=update_id)), 1))
    assert isinstance(command, list)
    return command[14:]


@pytest.mark.parametrize(
    ("topic", "claim"), [("book", [b"live", b"diff", b"20"]), ("quote", [b"live", b"", b"1"])], ids=["book", "quote"]
)
def test_a_submission_carries_the_claim_of_its_topic(topic: Topic, claim: list[bytes]) -> None:
    key = BookKey("md:book:binance:BTC-USDT", "A", "sha", topic=topic, claim=BookClaim("live", "diff", 20))

    assert arguments_after_the_body(key, "new", 7) == claim


def test_lower_ids_after_a_loss_carry_the_highest_one_before() -> None:
    fallen: set[BookKey] = set()
    key = BookKey("md:book:binance:BTC-USDT", "A", "sha", fallen=fallen)
    sent: list[tuple[SubmissionKind, int]] = [
        *(("new", 1000), ("again", 1003), ("new", 1002), ("state", 1002)),
        *(("new", 950), ("again", 951), ("new", 1003), ("new", 1002)),
    ]

    highest = [arguments_after_the_body(key, kind, update_id)[3:] for kind, update_id in sent]

    assert highest == [[], [], [], [], [b"1003"], [b"1003"], [], []]
    assert fallen == {key}


@pytest.mark.parametrize("sharded", [False, True])
def test_the_script_is_known_by_the_name_the_server_gives_it(sharded: bool) -> None:
    server = fakeredis.FakeRedis(server=fakeredis.FakeServer())

    assert server.script_load(script_text(sharded=sharded).decode()) == script_sha(sharded=sharded)
    assert parsed(load_command(sharded=sharded)) == [b"SCRIPT", b"LOAD", script_text(sharded=sharded)]


def test_the_script_starts_its_message_with_the_head_of_the_wire_format() -> None:
    escaped = "".join(chr(byte) if chr(byte).isalpha() and byte < 128 else f"\\{byte:03}" for byte in HEAD)

    assert f"local HEAD = '{escaped}'" in script_text().decode()
