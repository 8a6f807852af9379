"""The check of `health`, and a way to it without the library of the command lines, which containers repeat all day."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from bookbus.feeders.bus.connection import Reply, ReplyError, open_connection
from bookbus.kept_password import add_password
from bookbus.schemas.heartbeat import HeartbeatError, LineReport, parse_heartbeat_fields
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames
from bookbus.schemas.redis_url import DEFAULT_URL, RedisServer, masked, parse_redis_url, redacted, secrets_of

WAIT_LIMIT = 2.5
"""Seconds within which a living feeder sends a heartbeat: it sends one each second."""

_WAIT_INTERVAL = 0.1

UNHEALTHY = 2
"""Exit code of `--strict` if a feeder is alive but a book is not live or refused, or a line is silent."""


class HealthQuestion(NamedTuple):
    """What is asked, as the options say it."""

    redis: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX
    host: str = ""
    exchange: str = ""
    feeder_name: str = ""
    strict: bool = False


class CheckResult(NamedTuple):
    code: int
    output: str = ""
    error: str = ""


VARIABLES = {
    "redis": "BOOKBUS_REDIS_URL",
    "prefix": "BOOKBUS_PREFIX",
    "host": "BOOKBUS_HEALTH_HOST",
    "exchange": "BOOKBUS_EXCHANGE",
    "feeder_name": "BOOKBUS_FEEDER_ID",
}
"""The environment variable of each option that takes a value."""


def main(arguments: Sequence[str]) -> int | None:
    """The check with these arguments: the exit code, or None if they are not plain options with their values."""
    question = parse(arguments, os.environ)
    if question is None:
        return None
    try:
        outcome = check(question._replace(redis=add_password(question.redis, os.environ)))
    except ValueError as error:
        outcome = CheckResult(1, error=f"error: {error}")
    except KeyboardInterrupt:
        return 130
    for stream, text in ((sys.stdout, outcome.output), (sys.stderr, outcome.error)):
        stream.write(f"{text}\n" if text else "")
    return outcome.code


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> HealthQuestion | None:
    """What the arguments and the environment ask; None if an argument is another than the options of `health`."""
    values: dict[str, Any] = {name: environ[key] for name, key in VARIABLES.items() if environ.get(key)}
    waiting = list(arguments)
    while waiting:
        option, equals, value = waiting.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option == "--strict" and not equals:
            values["strict"] = True
        elif not option.startswith("--") or name not in VARIABLES or not (equals or waiting):
            return None
        else:
            values[name] = value if equals else waiting.pop(0)
    return HealthQuestion(**values)


def check(question: HealthQuestion) -> CheckResult:
    """Ask the server, and judge. The errors are one line each."""
    host = question.host or socket.gethostname()
    exchanges, feeders = _names(question.exchange.lower()), _names(question.feeder_name)
    try:
        found = asyncio.run(_beating(question.redis, RedisNames(question.prefix)))
    except ValueError as error:
        return CheckResult(1, error=f"error: {error}")
    except (OSError, TimeoutError) as error:
        reason = redacted(error, secrets_of(question.redis))
        return CheckResult(1, error=f"error: no reply from {masked(question.redis)}: {reason}")
    alive = [
        feeder
        for feeder in found
        if feeder.host == host
        and (not exchanges or feeder.exchange in exchanges)
        and (not feeders or any(map(feeder.is_called, feeders)))
    ]
    refused = [feeder for feeder in alive if feeder.refused]
    alive = [feeder for feeder in alive if not feeder.refused]
    refusals = [f"{feeder.key}\n  refused: {feeder.refused}" for feeder in refused]
    missing = [f"feeder of {name}" for name in exchanges if not any(one.exchange == name for one in alive)]
    missing += [f"feeder called {name}" for name in feeders if not any(one.is_called(name) for one in alive)]
    if missing or not alive:
        reasons = "; ".join(f"no {what} on {host} is alive" for what in missing or ["feeder"])
        return CheckResult(1, error="\n".join([*refusals, f"error: {reasons}"]))
    rows = "\n".join(row for feeder in alive for row in feeder.rows())
    unhealthy = question.strict and (refused or not all(feeder.healthy for feeder in alive))
    return CheckResult(UNHEALTHY if unhealthy else 0, rows, "\n".join(refusals))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


_WHO = ("host", "exchange", "feeder", "time_us")
_FIELDS = ("states", "counters", "lines", "failed", "refused_books", "network", "refused")
_MOST_REFUSED = 5
"""Refused books that are printed."""


class _Feeder(msgspec.Struct):
    """The fields of its heartbeat that are printed."""

    key: str
    host: str = ""
    exchange: str = ""
    feeder: str = ""
    time_us: str = ""
    states: dict[str, str] = {}
    counters: dict[str, float] = {}
    lines: list[LineReport] = []
    failed: dict[str, str] = {}
    refused_books: dict[str, str] = {}
    network: str = ""
    refused: str = ""

    def is_called(self, name: str) -> bool:
        """Whether it was started with this name, to which each run adds a suffix."""
        return self.feeder == name or self.feeder.rpartition("-")[0] == name

    @property
    def healthy(self) -> bool:
        """Whether every book is live and none refused, and no line is silent."""
        live = set(self.states.values()) == {"live"} and not self.refused_books
        return live and not any(line.silent for line in self.lines)

    def rows(self) -> Iterator[str]:
        """Lines of text: the books and each connection line."""
        yield f"{self.key} ({self.network})" if self.network else self.key
        if self.states:
            yield self._books()
        if dropped := int(self.counters.get("trades_dropped", 0)):
            yield f"  {dropped} trades dropped: Redis refused them or there was no room, see the feeder's log"
        yield from map(_row, self.lines)
        yield from (f"  {duty} ended: {reason}" for duty, reason in self.failed.items())
        refused = sorted(self.refused_books.items())
        yield from (f"  {symbol} refused: {reason}" for symbol, reason in refused[:_MOST_REFUSED])
        if len(refused) > _MOST_REFUSED:
            yield f"  and {len(refused) - _MOST_REFUSED} more books refused"

    def _books(self) -> str:
        live = sum(state == "live" for state in self.states.values())
        accepted, present, older = (int(self.counters.get(name, 0)) for name in ("accepted", "confirmed", "duplicates"))
        return (
            f"  {live} of {len(self.states)} books live; {accepted} accepted, {present} already present, {older} older"
        )


async def _beating(url: str, names: RedisNames) -> list[_Feeder]:
    """Every feeder whose heartbeat advances while this function looks, and refused ones, which send one alone.

    Raises like `_heartbeats`.

    A heartbeat that is only there proves nothing: if the server's clock is set back, that of a dead feeder does not
    expire.
    """
    found = await _heartbeats(url, names)
    first = {feeder.key: feeder.time_us for feeder in found}
    beating = {feeder.key: feeder for feeder in found if feeder.refused}
    deadline = time.monotonic() + WAIT_LIMIT
    while first.keys() - beating and time.monotonic() < deadline:
        await asyncio.sleep(_WAIT_INTERVAL)
        beating |= {
            feeder.key: feeder for feeder in await _heartbeats(url, names) if feeder.time_us != first.get(feeder.key)
        }
    return [beating[key] for key in sorted(beating)]


async def _heartbeats(url: str, names: RedisNames) -> list[_Feeder]:
    """Every feeder with a heartbeat. Raises ValueError for an invalid URL, OSError without a reply."""
    address = parse_redis_url(url)
    if address.kind == "server" and len(address.servers) == 1:
        # Importing redis-py takes longer than the whole check, which containers repeat all day.
        replies = await _ask(address.servers[0], names.feeder("*"))
    else:
        replies = await _ask_servers(url, names)
    return [_feeder(key, values) for key, values in sorted(replies.items())]


async def _ask(server: RedisServer, pattern: str) -> dict[str, list[Any]]:
    """The fields of each hash that matches. Raises OSError."""
    connection = await open_connection(server)

    async def call(*command: str | bytes | int) -> Reply:
        reply = await connection.call(*command)
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        return reply

    try:
        keys, cursor = set(), b"0"
        while True:
            cursor, found = cast(tuple[bytes, list[bytes]], await call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
            keys.update(found)
            if cursor == b"0":
                break
        return {
            key.decode(errors="replace"): cast(list[Any], await call("HMGET", key, *_WHO, *_FIELDS)) for key in keys
        }
    finally:
        connection.close()


async def _ask_servers(url: str, names: RedisNames) -> dict[str, list[Any]]:
    """The same by redis-py, which knows Sentinels and clusters."""
    from bookbus.feeders.bus.heartbeat import read_heartbeats
    from bookbus.feeders.bus.servers import CONTROL_ERRORS

    try:
        return await read_heartbeats(url, names, *_WHO, *_FIELDS)
    except CONTROL_ERRORS as error:
        raise ConnectionError(str(error)) from error


def _feeder(name: str, values: Sequence[bytes | str | None]) -> _Feeder:
    """Without the fields if another version of the feeder wrote them in another format."""
    count = len(_WHO)
    who: dict[str, Any] = {
        field: value.decode(errors="replace") if isinstance(value, bytes) else value
        for field, value in zip(_WHO, values[:count], strict=True)
        if value is not None
    }
    try:
        return _Feeder(name, **who, **parse_heartbeat_fields(_FIELDS, values[count:]))
    except HeartbeatError:
        return _Feeder(name, **who)


def _row(line: LineReport) -> str:
    lead = ""
    if line.lead_median_ms is not None and line.lead_p99_ms is not None:
        lead = f", by {line.lead_median_ms:.1f} ms (median), {line.lead_p99_ms:.1f} ms (p99)"
    share = f"first with {line.first} of {line.updates} updates{lead}"
    return f"  line {line.line}: {'SILENT, ' if line.silent else ''}{line.open} of {line.connections} open, {share}"
