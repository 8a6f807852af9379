"""Readers as a table for a person."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from bookbus.consumers.commands.options import milliseconds
from bookbus.consumers.monitor.readers import Reader, ReaderState

_STYLES = {ReaderState.OK: "green", ReaderState.UNKNOWN: "yellow", ReaderState.SLOW: "bold red"}
_STOPPED = "bold red"
_SYMBOLS_SHOWN = 3


def table_of(readers: Sequence[Reader]) -> Table:
    """One row a reader: who it is, what it tells, what the server sees, and what that means."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for heading in ("reader", "follows"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        *("lag", "delay", "received", "conflated", "missed", "reconnects"),
        *("subs", "unsent", "unread", "age", "idle"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for reader in readers:
        table.add_row(*_row(reader))
    return table


def _row(reader: Reader) -> list[Text | str]:
    record = reader.record
    told = (record.received, record.conflated, record.missed, record.reconnects) if record is not None else (None,) * 4
    return [
        Text(reader.name),
        Text(_follows(reader)),
        milliseconds(record.lag if record is not None else None),
        milliseconds(record.delay if record is not None else None),
        *map(_count, told),
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
