"""`health`: whether this host's feeder shows signs of life, and its lines; for health checks and people."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from bookbus.feeders.bus.servers import CONTROL_ERRORS, control_client
from bookbus.feeders.commands.options import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, fail
from bookbus.schemas.heartbeat import HeartbeatError, LineReport, parse_heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

NOT_WELL = 2
"""Exit code of `--strict` where a feeder lives, but not all is as it should be."""

EXAMPLES = """
Exit code 0 if a feeder on this host told within the last seconds that it lives.

With --strict it has to be well too: every book live, and no line silent of several; else the exit code is 2. Wait for
that between the two restarts of a pair of feeders.

\b
  python -m feeders health
  python -m feeders health --strict
  python -m feeders health --host feeder-1
"""


_FIELDS = ("states", "counters", "lines")


class _Feeder(msgspec.Struct):
    """What its heartbeat says."""

    key: str
    states: dict[str, str] = {}
    counters: dict[str, float] = {}
    lines: list[LineReport] = []

    @property
    def well(self) -> bool:
        """Whether every book is live and every line brings updates."""
        return set(self.states.values()) == {"live"} and not any(line.silent for line in self.lines)

    def rows(self) -> Iterator[str]:
        """For people: what Redis said of its books, and what each line brought."""
        yield self.key
        if self.states:
            yield self._books()
        yield from map(_row, self.lines)

    def _books(self) -> str:
        live = sum(state == "live" for state in self.states.values())
        accepted, there, older = (int(self.counters.get(name, 0)) for name in ("accepted", "confirmed", "duplicates"))
        return f"  {live} of {len(self.states)} books live; {accepted} accepted, {there} there already, {older} older"


def health(
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    host: Annotated[str, typer.Option(envvar="BOOKBUS_HEALTH_HOST", help="Host name; this one by default.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 2 unless all books are live and no line is silent.")
    ] = False,
) -> None:
    """Exit code 0 if a feeder on this host lives."""
    try:
        alive = asyncio.run(_alive(redis, RedisNames(prefix), host or socket.gethostname()))
    except ValueError as error:
        fail(str(error))
    except CONTROL_ERRORS as error:
        fail(f"no answer from {masked(redis)}: {redacted(error, secrets_of(redis))}")
    if not alive:
        fail(f"no feeder on {host or socket.gethostname()} shows signs of life")
    typer.echo("\n".join(row for feeder in alive for row in feeder.rows()))
    if strict and not all(feeder.well for feeder in alive):
        raise typer.Exit(NOT_WELL)


health.__doc__ = EXAMPLES


async def _alive(url: str, names: RedisNames, host: str) -> list[_Feeder]:
    redis = control_client(url)
    try:
        keys = sorted([key async for key in redis.scan_iter(match=names.feeder("*"), count=1000)])
        found = [(key, await redis.hmget(key, "host", *_FIELDS)) for key in keys]
    finally:
        await redis.aclose()
    return [_feeder(key, *fields) for key, (where, *fields) in found if where == host.encode()]


def _feeder(key: bytes, *fields: bytes | str | None) -> _Feeder:
    """What cannot be read, as from another version, is left out."""
    name = key.decode(errors="replace")
    try:
        return _Feeder(name, **parse_heartbeat_fields(_FIELDS, fields))
    except HeartbeatError:
        return _Feeder(name)


def _row(line: LineReport) -> str:
    lead = ""
    if line.lead_median_ms is not None and line.lead_p99_ms is not None:
        lead = f", by {line.lead_median_ms:.1f} ms (median), {line.lead_p99_ms:.1f} ms (p99)"
    share = f"first with {line.first} of {line.updates} updates{lead}"
    return f"  line {line.line}: {'SILENT, ' if line.silent else ''}{line.open} of {line.connections} open, {share}"
