"""The publish script on fakeredis, and the commands that call it."""

import fakeredis
import hiredis
import pytest

from bookbus.feeders.bus.publish_script import BookKey, Submission, load_command, script_sha, script_text
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


@pytest.mark.parametrize("sharded", [False, True])
def test_the_script_is_known_by_the_name_the_server_gives_it(sharded: bool) -> None:
    server = fakeredis.FakeRedis(server=fakeredis.FakeServer())

    assert server.script_load(script_text(sharded=sharded).decode()) == script_sha(sharded=sharded)
    assert parsed(load_command(sharded=sharded)) == [b"SCRIPT", b"LOAD", script_text(sharded=sharded)]


def test_the_script_starts_its_message_with_the_head_of_the_wire_format() -> None:
    escaped = "".join(chr(byte) if chr(byte).isalpha() and byte < 128 else f"\\{byte:03}" for byte in HEAD)

    assert f"local HEAD = '{escaped}'" in script_text().decode()
