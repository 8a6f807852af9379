"""`health`: whether a feeder on this host is alive, its books and its lines."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from bookbus.command_line import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, fail
from bookbus.feeders.bus.heartbeat import read_heartbeats
from bookbus.feeders.bus.servers import CONTROL_ERRORS
from bookbus.schemas.heartbeat import HeartbeatError, LineReport, parse_heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

UNHEALTHY = 2
"""Exit code of `--strict` if a feeder is alive but a book is not live or a line is silent."""


def health(
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    host: Annotated[str, typer.Option(envvar="BOOKBUS_HEALTH_HOST", help="Host name; by default this host's.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 2 unless all books are live and no line is silent.")
    ] = False,
) -> None:
    """Exit code 0 if a feeder on this host sent a heartbeat within the last seconds, else 1.

    With --strict it must also be healthy: every book live, and no line silent if there are several; else the exit code
    is 2. When you restart a pair of feeders, wait for this before you restart the second one.

    \b
      python -m feeders health
      python -m feeders health --strict
      python -m feeders health --host feeder-1
    """
    try:
        alive = asyncio.run(_alive(redis, RedisNames(prefix), host or socket.gethostname()))
    except ValueError as error:
        fail(str(error))
    except CONTROL_ERRORS as error:
        fail(f"no reply from {masked(redis)}: {redacted(error, secrets_of(redis))}")
    if not alive:
        fail(f"no feeder on {host or socket.gethostname()} is alive")
    typer.echo("\n".join(row for feeder in alive for row in feeder.rows()))
    if strict and not all(feeder.healthy for feeder in alive):
        raise typer.Exit(UNHEALTHY)


_FIELDS = ("states", "counters", "lines", "failed")


class _Feeder(msgspec.Struct):
    """The fields of its heartbeat that are printed."""

    key: str
    states: dict[str, str] = {}
    counters: dict[str, float] = {}
    lines: list[LineReport] = []
    failed: dict[str, str] = {}

    @property
    def healthy(self) -> bool:
        """Whether every book is live and no line is silent."""
        return set(self.states.values()) == {"live"} and not any(line.silent for line in self.lines)

    def rows(self) -> Iterator[str]:
        """Lines of text: the books and each connection line."""
        yield self.key
        if self.states:
            yield self._books()
        yield from map(_row, self.lines)
        yield from (f"  {duty} ended: {reason}" for duty, reason in self.failed.items())

    def _books(self) -> str:
        live = sum(state == "live" for state in self.states.values())
        accepted, present, older = (int(self.counters.get(name, 0)) for name in ("accepted", "confirmed", "duplicates"))
        return (
            f"  {live} of {len(self.states)} books live; {accepted} accepted, {present} already present, {older} older"
        )


async def _alive(url: str, names: RedisNames, host: str) -> list[_Feeder]:
    found = await read_heartbeats(url, names, "host", *_FIELDS)
    return [_feeder(key, *fields) for key, (where, *fields) in found.items() if where == host.encode()]


def _feeder(key: str, *fields: bytes | str | None) -> _Feeder:
    """Without the fields if another version of the feeder wrote them in another format."""
    try:
        return _Feeder(key, **parse_heartbeat_fields(_FIELDS, fields))
    except HeartbeatError:
        return _Feeder(key)


def _row(line: LineReport) -> str:
    lead = ""
    if line.lead_median_ms is not None and line.lead_p99_ms is not None:
        lead = f", by {line.lead_median_ms:.1f} ms (median), {line.lead_p99_ms:.1f} ms (p99)"
    share = f"first with {line.first} of {line.updates} updates{lead}"
    return f"  line {line.line}: {'SILENT, ' if line.silent else ''}{line.open} of {line.connections} open, {share}"
