"""`health`: whether this host's feeder shows signs of life, and its lines; for health checks and people."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from bookbus.feeders.bus.servers import CONTROL_ERRORS, control_client
from bookbus.feeders.commands.options import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, fail
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.heartbeat import LineReport
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

NOT_WELL = 2
"""Exit code of `--strict` where a feeder lives, but not all is as it should be."""


def health(
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    host: Annotated[str, typer.Option(envvar="BOOKBUS_HEALTH_HOST", help="Host name; this one by default.")] = "",
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
        fail(f"no answer from {masked(redis)}: {redacted(error, secrets_of(redis))}")
    if not alive:
        fail(f"no feeder on {host or socket.gethostname()} shows signs of life")
    typer.echo("\n".join(row for feeder in alive for row in feeder.rows()))
    if strict and not all(feeder.well for feeder in alive):
        raise typer.Exit(NOT_WELL)


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


async def _alive(url: str, names: RedisNames, host: str) -> list[_Feeder]:
    redis = control_client(url)
    try:
        keys = sorted([key async for key in redis.scan_iter(match=names.feeder("*"), count=1000)])
        found = [(key, await redis.hmget(key, "host", "states", "counters", "lines")) for key in keys]
    finally:
        await redis.aclose()
    return [_feeder(key, *fields) for key, (where, *fields) in found if where == host.encode()]


def _feeder(key: bytes, *fields: bytes | str | None) -> _Feeder:
    """What cannot be read, as from another version, is left out."""
    name = key.decode(errors="replace")
    parts = {
        field: msgspec.Raw(text) for field, text in zip(("states", "counters", "lines"), fields, strict=True) if text
    }
    try:
        return msgspec.json.decode(msgspec.json.encode({"key": name} | parts), type=_Feeder)
    except DECODE_ERRORS:
        return _Feeder(name)


def _row(line: LineReport) -> str:
    lead = ""
    if line.lead_median_ms is not None and line.lead_p99_ms is not None:
        lead = f", by {line.lead_median_ms:.1f} ms (median), {line.lead_p99_ms:.1f} ms (p99)"
    share = f"first with {line.first} of {line.updates} updates{lead}"
    return f"  line {line.line}: {'SILENT, ' if line.silent else ''}{line.open} of {line.connections} open, {share}"
