"""`export`: a recording as a table for other tools."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import ended_by_signal, fail, start_logging
from bookbus.consumers.recording import Recording
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.instruments import SymbolError


class ExportTable(StrEnum):
    QUOTES = "quotes"
    BOOKS = "books"
    TRADES = "trades"


class ExportFormat(StrEnum):
    PARQUET = "parquet"
    CSV = "csv"


def export(
    capture: Annotated[Path, typer.Argument(help="The recording.")],
    to: Annotated[
        ExportFormat, typer.Option(envvar="BOOKBUS_EXPORT_TO", help="Format of the file.")
    ] = ExportFormat.PARQUET,
    table: Annotated[
        ExportTable,
        typer.Option(
            envvar="BOOKBUS_EXPORT_TABLE",
            help="quotes: the best prices after each change of a book; books: every level of it; trades.",
        ),
    ] = ExportTable.QUOTES,
    symbol: Annotated[str, typer.Option(envvar="BOOKBUS_EXPORT_SYMBOL", help="Only this one; else all.")] = "",
    depth: Annotated[int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels per side.")] = 20,
    out: Annotated[Path | None, typer.Option(envvar="BOOKBUS_EXPORT_OUT", help="Else beside the recording.")] = None,
) -> None:
    """Write a recording as a table, which polars, pandas, DuckDB and others read. Times are in microseconds since 1970.

    \b
      python -m consumers export btc_eth.jsonl.gz
      python -m consumers export btc_eth.jsonl.gz --table books --depth 5 --symbol BTC
      python -m consumers export btc_eth.jsonl.gz --table trades --to csv --out trades.csv
    """
    start_logging("error")
    path = out or capture.with_name(f"{capture.name.partition('.')[0]}_{table}.{to}")
    unfinished = path.with_name(f".{path.name}.new")
    try:
        with ended_by_signal():
            frame = Recording(capture, depth).to_polars(table.value, symbol or None)
            write = frame.write_parquet if to is ExportFormat.PARQUET else frame.write_csv
            write(unfinished)
            unfinished.replace(path)
    except (CaptureError, SymbolError, ImportError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or path}: {(error.strerror or str(error)).lower()}")
    finally:
        unfinished.unlink(missing_ok=True)
    typer.echo(f"{path}: {frame.height} rows")
