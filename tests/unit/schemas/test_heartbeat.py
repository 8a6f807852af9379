"""A feeder's heartbeat, as a message and as the fields of a hash."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.heartbeat import (
    FeederHeartbeat,
    HeartbeatError,
    decode_heartbeat,
    encode_heartbeat,
    heartbeat_fields,
    parse_heartbeat_fields,
)

BEAT = FeederHeartbeat(
    feeder="binance-host-1-abc",
    exchange="binance",
    endpoint="wss://example.test/stream",
    states={"BTC-USDT": "live", "ETH-USDT": "syncing"},
    host="host",
    pid=7,
    started_us=1_700_000_000_000_000,
    time_us=1_700_000_001_000_000,
    counters={"frames": 12, "rate": 0.5},
)


def test_message_is_a_json_object_of_all_fields() -> None:
    assert json.loads(encode_heartbeat(BEAT)) == msgspec.to_builtins(BEAT)


def test_heartbeat_survives_its_message() -> None:
    assert decode_heartbeat(encode_heartbeat(BEAT)) == BEAT


def test_keys_of_later_versions_are_ignored() -> None:
    assert decode_heartbeat(json.dumps(msgspec.to_builtins(BEAT) | {"more": 1}).encode()) == BEAT


def test_fields_of_the_hash_are_text_and_maps_are_json() -> None:
    assert heartbeat_fields(BEAT) == {
        "feeder": "binance-host-1-abc",
        "exchange": "binance",
        "endpoint": "wss://example.test/stream",
        "states": '{"BTC-USDT":"live","ETH-USDT":"syncing"}',
        "host": "host",
        "pid": "7",
        "started_us": "1700000000000000",
        "time_us": "1700000001000000",
        "counters": '{"frames":12,"rate":0.5}',
        "lines": "[]",
        "audit": "null",
        "failed": "{}",
        "ignored": "{}",
        "mode": "",
        "depth": "0",
        "refused_books": "{}",
        "trading": "{}",
        "network": "",
        "refused": "",
    }


def test_fields_of_the_hash_are_read_back_whichever_are_there() -> None:
    names = ("feeder", "pid", "states", "lines", "audit", "endpoint")
    fields = heartbeat_fields(BEAT)
    values = [fields[name].encode() for name in names[:-1]]

    assert parse_heartbeat_fields(names, [*values, None]) == {
        "feeder": BEAT.feeder,
        "pid": 7,
        "states": BEAT.states,
        "lines": [],
        "audit": None,
    }


@pytest.mark.parametrize(("name", "value"), [("pid", b"x"), ("lines", b'[{"line":"one"}]'), ("feeder", b"\xff")])
def test_a_field_of_the_hash_that_is_something_else_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(HeartbeatError, match="cannot decode a feeder's heartbeat"):
        parse_heartbeat_fields([name], [value])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no fields"),
        pytest.param(encode_heartbeat(BEAT)[:-1], id="cut short"),
        pytest.param(encode_heartbeat(BEAT).replace(b'"live"', b'"fine"'), id="unknown state"),
        pytest.param(encode_heartbeat(BEAT).replace(b"binance-host", b"\xff"), id="not UTF-8"),
        pytest.param(encode_heartbeat(BEAT)[:-1] + b',"more":' + b"[" * 100_000, id="nesting without end"),
    ],
)
def test_what_is_no_heartbeat_is_refused(data: bytes) -> None:
    with pytest.raises(HeartbeatError):
        decode_heartbeat(data)


@given(st.binary())
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(HeartbeatError):
        decode_heartbeat(data)
