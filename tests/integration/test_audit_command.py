"""`python -m feeders audit`, over heartbeats of feeders."""

from typing import Any

import redis
from typer.testing import CliRunner

from bookbus.feeders.__main__ import make_app
from bookbus.schemas.heartbeat import AuditReport, FeederHeartbeat, SymbolAudit, heartbeat_fields
from bookbus.schemas.redis_names import RedisNames

app = make_app()

GOOD = AuditReport(symbols=2, prices=20, total=SymbolAudit(matched=7, unmatched=1, levels=1400))
FOUND = SymbolAudit(matched=2, mismatched=1, levels=600, ghosts=2, missing=1, wrong=3, misses=4)
BAD = AuditReport(symbols=1, prices=20, total=FOUND, worst={"BTC-USDT": FOUND})


def run(url: str, *options: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = CliRunner().invoke(app, ["audit", "--redis", url, *options])
    return result.exit_code, result.output


def beat(url: str, feeder: str, audit: AuditReport | None, exchange: str = "binance", prefix: str = "md") -> None:
    """Write the heartbeat of a feeder with its audit report."""
    heartbeat = FeederHeartbeat(
        feeder=feeder,
        exchange=exchange,
        endpoint="wss://x",
        states={},
        host="host",
        pid=1,
        started_us=0,
        time_us=0,
        audit=audit,
    )
    fields: dict[Any, Any] = {**heartbeat_fields(heartbeat)}
    with redis.Redis.from_url(url) as client:
        client.hset(RedisNames(prefix).feeder(feeder), mapping=fields)


def test_equal_books_give_exit_code_0(redis_url: str) -> None:
    beat(redis_url, "a", GOOD)

    assert run(redis_url) == (
        0,
        "binance: feeder a on host\n"
        "  books   7 equal, 0 different, 1 not comparable; 2 symbols compared\n"
        "  levels  1400 compared, 100 % equal: 0 ghosts, 0 missing, 0 with another quantity\n"
        "  prices  20 best prices checked, 0 missed\n",
    )


def test_a_different_book_is_shown_by_name_and_fails(redis_url: str) -> None:
    beat(redis_url, "a", GOOD)
    beat(redis_url, "b", BAD)

    code, output = run(redis_url)

    assert code == 1
    assert "1 different" in output
    (row,) = [line for line in output.splitlines() if "BTC-USDT" in line]
    assert row.replace("│", " ").split() == ["BTC-USDT", "2", "1", "99", "%", "2", "1", "3", "4"]
    assert output.splitlines()[-1].startswith("error: comparisons that found a difference: 1;")


def test_before_the_first_comparison_no_ratio_is_printed(redis_url: str) -> None:
    beat(redis_url, "a", AuditReport(symbols=0, prices=0, total=SymbolAudit()))

    code, output = run(redis_url)

    assert code == 0
    assert "0 compared, - equal" in output


def test_a_single_wrong_level_among_very_many_is_not_rounded_away(redis_url: str) -> None:
    beat(redis_url, "a", AuditReport(symbols=1, prices=0, total=SymbolAudit(levels=10**9, wrong=1)))

    assert "99.9999 % equal" in run(redis_url)[1]


def test_a_feeder_that_does_not_audit_says_so(redis_url: str) -> None:
    beat(redis_url, "a", None, exchange="upbit")

    assert run(redis_url) == (0, "upbit: feeder a on host\n  its books are not audited\n")


def test_without_a_feeder_it_fails_in_one_line(redis_url: str) -> None:
    beat(redis_url, "a", GOOD, prefix="paper")

    code, output = run(redis_url)

    assert code == 1
    assert output.startswith("error: no feeder is running")
    assert output.count("\n") == 1
    assert run(redis_url, "--prefix", "paper")[0] == 0


def test_an_invalid_heartbeat_is_a_one_line_error(redis_url: str) -> None:
    beat(redis_url, "a", GOOD)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(RedisNames().feeder("a"), "audit", "{}")

    code, output = run(redis_url)

    assert code == 1
    assert output.startswith("error: cannot decode a feeder's heartbeat")
    assert output.count("\n") == 1
