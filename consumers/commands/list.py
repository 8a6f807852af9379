"""`list`: the readers of the bus, and which of them do not keep up."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bookbus.command_line import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, ended_by_signal, fail, start_logging
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.bus.readers import Reader, ReaderState, Registry, read_registry, readers_of
from bookbus.consumers.commands.show import milliseconds
from bookbus.schemas.redis_names import RedisNames

_STYLES = {ReaderState.OK: "green", ReaderState.UNKNOWN: "yellow", ReaderState.SLOW: "bold red"}
_STOPPED = "bold red"
_SYMBOLS_SHOWN = 3
_FIGURES = ("lag", "delay", "received", "conflated", "missed", "reconnects", "subs", "unsent", "unread", "age", "idle")
_WIDTH = 400
"""Wider than any row, so that rich never shortens a cell."""

_NO_CLIENTS = "this user may not run CLIENT LIST: subscriptions, buffers and other programs are unknown"
_NO_RECORDS = "this user may not read the hashes of the readers"


def list_readers(
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per reader.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
) -> None:
    """The readers of the bus, slow and stopped ones first.

    Each row joins what the reader reports with what the server's CLIENT LIST shows. Other subscribers are listed with
    the server's figures alone. Exit code 1 if a reader is slow or stopped.

    \b
      python -m consumers list
      python -m consumers list --redis redis://viewer@10.0.0.5:6379/0
      python -m consumers list --json | jq 'select(.state != "ok") | .name'
      watch python -m consumers list
    """
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


def table_of(readers: Sequence[Reader]) -> Table:
    """One row per reader: its name, its own figures, those of the server, and its state."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for heading in ("reader", "follows"):
        table.add_column(heading, no_wrap=True)
    for heading in _FIGURES:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for reader in readers:
        table.add_row(*_row(reader))
    return table


def _print(readers: list[Reader], registry: Registry) -> None:
    if readers:
        # On a narrow terminal, a wrapped row is better than one with its figures cut off.
        Console(width=_WIDTH).print(table_of(readers), crop=False)
    behind = sum(reader.state in (ReaderState.SLOW, ReaderState.STOPPED) for reader in readers)
    count = "1 reader" if len(readers) == 1 else f"{len(readers)} readers"
    typer.echo(f"{count}, {behind} slow or stopped" if readers else "no readers")
    for view, remark in ((registry.clients, _NO_CLIENTS), (registry.records, _NO_RECORDS)):
        if view is None:
            typer.echo(remark)


def _row(reader: Reader) -> list[Text | str]:
    record = reader.record
    counts = (None,) * 4 if record is None else (record.received, record.conflated, record.missed, record.reconnects)
    return [
        Text(reader.name),
        Text(_follows(reader)),
        milliseconds(record.lag if record is not None else None),
        milliseconds(record.delay if record is not None else None),
        *map(_count, counts),
        _count(reader.subscriptions),
        _bytes(reader.unsent),
        _bytes(reader.unread),
        _seconds(reader.age),
        _seconds(reader.idle),
        Text(
            f"{reader.state}: {reader.reason}" if reader.reason else str(reader.state),
            style=_STYLES.get(reader.state, _STOPPED),
        ),
    ]


def _follows(reader: Reader) -> str:
    if reader.record is None:
        return "-"
    symbols = reader.record.symbols
    more = f" +{len(symbols) - _SYMBOLS_SHOWN}" if len(symbols) > _SYMBOLS_SHOWN else ""
    return f"{reader.record.exchange} {','.join(symbols[:_SYMBOLS_SHOWN])}{more}".strip() or "-"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB" if value >= 1e3 else f"{value} B"


def _seconds(value: int | None) -> str:
    return "-" if value is None else f"{value} s" if value < 7200 else f"{value / 3600:.0f} h"
