"""What the doctor says of facts: what is wrong is named, with what to change."""

from pathlib import Path
from typing import Any

import pytest

from bookbus.doctor import (
    ExchangeFacts,
    Finding,
    MachineFacts,
    ServerFacts,
    ask_exchange,
    ask_machine,
    judge_exchange,
    judge_machine,
    judge_server,
    no_server,
)

RIGHT: dict[str, Any] = {
    "info": {"redis_version": "7.2.4", "role": "master", "maxmemory": "1000000000", "used_memory": "5000000"},
    "config": {
        "maxmemory-policy": "noeviction",
        "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 8388608 2097152 5",
        "protected-mode": "yes",
    },
    "round_trip": 0.0002,
    "clock_offset": 0.001,
}


def server(**changes: Any) -> ServerFacts:
    """A server as it should be, with these facts changed; those of `info` and `config` are merged."""
    merged = {name: RIGHT[name] | value if name in ("info", "config") else value for name, value in changes.items()}
    return ServerFacts(server="redis://h:6379/0", **RIGHT | merged)


def faults(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.subject) for finding in findings if finding.level != "ok"]


def test_server_as_it_should_be_has_no_fault() -> None:
    assert faults(judge_server(server())) == []
    assert faults(judge_server(server(info={"valkey_version": "9.1.1"}))) == []


@pytest.mark.parametrize(
    ("facts", "level", "subject", "remedy"),
    [
        (server(info={"redis_version": "5.0.7"}), "wrong", "server", "Redis 6.2 or later"),
        (server(info={"redis_version": "6.0.16"}), "wrong", "server", "Redis 6.2 or later"),
        (server(info={"role": "slave"}), "wrong", "role", "address of the primary"),
        (server(write_error="READONLY You can't write"), "wrong", "role", "address of the primary"),
        (server(write_error="NOPERM this user"), "advice", "rights", "the user feeder"),
        (server(write_error="OOM command not allowed"), "wrong", "rights", "a full memory"),
        (server(config={"maxmemory-policy": "allkeys-lru"}), "wrong", "eviction", "maxmemory-policy noeviction"),
        (
            server(config={"maxmemory-policy": "volatile-ttl"}, info={"maxmemory": "0"}),
            "advice",
            "eviction",
            "maxmemory-policy noeviction",
        ),
        (server(info={"used_memory": "950000000"}), "wrong", "memory", "raise maxmemory"),
        (
            server(config={"client-output-buffer-limit": "normal 0 0 0 pubsub 100000 50000 5"}),
            "wrong",
            "output limit",
            "pubsub 8mb 2mb 5",
        ),
        (
            server(config={"client-output-buffer-limit": "pubsub 33554432 8388608 60"}),
            "advice",
            "output limit",
            "pubsub 8mb 2mb 5",
        ),
        (server(config={"client-output-buffer-limit": "pubsub 0 0 0"}), "advice", "output limit", "pubsub 8mb 2mb 5"),
        (server(config={"protected-mode": "no"}, anyone=True), "wrong", "protection", "protected-mode yes"),
        (server(round_trip=0.05), "advice", "latency", "nearer"),
        (server(clock_offset=0.7), "advice", "clock", "synchronise"),
        (server(clock_offset=-30.0), "wrong", "clock", "synchronise"),
    ],
)
def test_fault_is_named_with_its_remedy(facts: ServerFacts, level: str, subject: str, remedy: str) -> None:
    findings = judge_server(facts)

    assert faults(findings) == [(level, subject)]
    (finding,) = [one for one in findings if one.level != "ok"]
    assert remedy in finding.remedy


def test_settings_that_may_not_be_read_are_advice() -> None:
    facts = ServerFacts(server="h", info=RIGHT["info"], round_trip=0.0001, clock_offset=0.0)

    assert faults(judge_server(facts)) == [("advice", "settings")]


@pytest.mark.parametrize("text", ["ahead of", "behind"])
def test_clock_says_which_one_is_ahead(text: str) -> None:
    findings = judge_server(server(clock_offset=5.0 if text == "ahead of" else -5.0))

    assert [one.text for one in findings if one.subject == "clock"] == [
        f"the server's clock is 5 s {text} this machine's"
    ]


@pytest.mark.parametrize(
    ("reason", "subject", "remedy"),
    [
        ("h:1: connection refused", "server", "start one"),
        ("h: host name not found", "server", "start one"),
        ("refused AUTH (WRONGPASS invalid username-password pair)", "login", "BOOKBUS_REDIS_PASSWORD"),
        ("NOAUTH Authentication required.", "login", "BOOKBUS_REDIS_PASSWORD"),
        ("refused AUTH (ERR AUTH <password> called without any password configured)", "login", "name a user"),
        ("NOPERM this user has no permissions to run the 'ping' command", "login", "bookbus acl"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "server", "ssl_ca_certs"),
    ],
)
def test_server_that_cannot_be_asked_has_a_remedy(reason: str, subject: str, remedy: str) -> None:
    finding = no_server("redis://h", reason)

    assert (finding.level, finding.subject) == ("wrong", subject)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": 200}, []),
        ({"status": 404, "clock_offset": 0.5}, []),
        ({"status": 451}, [("wrong", "exchange binance")]),
        ({"status": 403}, [("wrong", "exchange binance")]),
        ({"rest_error": "host name not found"}, [("wrong", "exchange binance")]),
        ({"status": 200, "ws_error": "connection refused"}, [("wrong", "exchange binance")]),
        ({"status": 200, "clock_offset": -40.0}, [("wrong", "clock")]),
    ],
)
def test_exchange(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    facts = ExchangeFacts(exchange="binance", rest_url="https://a", ws_url="wss://b", **changes)

    assert faults(judge_exchange(facts)) == expected


@pytest.mark.parametrize(
    ("rest_url", "ws_url", "errors"),
    [
        ("http://127.0.0.1:1", "ws://127.0.0.1:1", ("connection refused", "connection refused")),
        ("ftp://h", "h", ("no http address", "no ws address")),
        ("http://nobody.invalid", "wss://nobody.invalid", ("host name not found", "host name not found")),
    ],
)
def test_exchange_that_cannot_be_reached(rest_url: str, ws_url: str, errors: tuple[str, str]) -> None:
    facts = ask_exchange("binance", rest_url, ws_url)

    assert (facts.rest_error, facts.ws_error) == errors


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (MachineFacts(open_files=65536, directories={"/c": ""}, free={"/c": 10**10}), []),
        (MachineFacts(open_files=256, directories={}, free={}), [("wrong", "open files")]),
        (MachineFacts(open_files=65536, directories={"/c": "read-only"}, free={}), [("wrong", "directory")]),
        (MachineFacts(open_files=65536, directories={}, free={"/c": 10**6}), [("wrong", "free space")]),
    ],
)
def test_machine(facts: MachineFacts, expected: list[tuple[str, str]]) -> None:
    assert faults(judge_machine(facts)) == expected


def test_directory_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    facts = ask_machine([tmp_path / "new" / "cache", tmp_path / "file" / "cache"])

    assert facts.directories == {
        str(tmp_path / "new" / "cache"): "",
        str(tmp_path / "file" / "cache"): "not a directory",
    }
    assert list((tmp_path / "new" / "cache").iterdir()) == []


def test_every_fault_has_a_remedy_and_nothing_that_is_right_has() -> None:
    findings = judge_server(server(clock_offset=9.0, round_trip=1.0, write_error="OOM"))

    assert [bool(one.remedy) for one in findings] == [one.level != "ok" for one in findings]
