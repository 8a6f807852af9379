"""`list`: who reads from the bus, and who of them does not keep up."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bookbus.consumers.bus.address import BusConnectionError
from bookbus.consumers.bus.readers import Registry, read_registry
from bookbus.consumers.commands.options import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    Prefix,
    RedisUrl,
    ended_by_signal,
    fail,
    start_logging,
)
from bookbus.consumers.monitor.readers import Reader, ReaderState, readers_of
from bookbus.consumers.monitor.readers_table import table_of
from bookbus.schemas.redis_names import RedisNames

EXAMPLES = """
Who reads from the bus: what each reader tells of itself, joined with what the server sees of it; those that do not
keep up come first. Other programs that subscribe are listed with what the server sees.
Exit code 1 if a reader is slow or stopped.

\b
  python -m consumers list
  python -m consumers list --redis redis://viewer@10.0.0.5:6379/0
  python -m consumers list --json | jq 'select(.state != "ok") | .name'
  watch python -m consumers list
"""

_WIDTH = 400
"""More than any row is long."""

_NO_CLIENTS = "this user may not see CLIENT LIST: subscriptions, unsent bytes and other programs are not known"
_NO_RECORDS = "this user may not read what readers tell of themselves"


def list_readers(
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object a reader.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
) -> None:
    """Who reads from the bus, and who of them does not keep up."""
    start_logging("error")
    try:
        with ended_by_signal():
            registry = read_registry(redis, RedisNames(prefix))
    except (BusConnectionError, ValueError) as error:
        fail(str(error))
    readers = readers_of(registry)
    if json:
        for reader in readers:
            typer.echo(msgspec.json.encode(reader))
    else:
        _print(readers, registry)
    if any(reader.state in (ReaderState.SLOW, ReaderState.STOPPED) for reader in readers):
        raise typer.Exit(1)


list_readers.__doc__ = EXAMPLES


def _print(readers: list[Reader], registry: Registry) -> None:
    if readers:
        # A row that a narrow terminal breaks is better than one with its figures cut off.
        Console(width=_WIDTH).print(table_of(readers), crop=False)
    behind = sum(reader.state in (ReaderState.SLOW, ReaderState.STOPPED) for reader in readers)
    count = "1 reader" if len(readers) == 1 else f"{len(readers)} readers"
    typer.echo(f"{count}, {behind} slow or stopped" if readers else "nobody reads")
    for view, remark in ((registry.clients, _NO_CLIENTS), (registry.records, _NO_RECORDS)):
        if view is None:
            typer.echo(remark)
