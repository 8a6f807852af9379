"""`calibrate`: how often passive orders are filled along a recording."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bookbus.command_line import LogLevel, ended_by_signal, fail, split_names, start_logging
from bookbus.consumers.paper.calibration import fit
from bookbus.consumers.paper.calibration.table import (
    CalibrationError,
    CalibrationTable,
    Method,
    Score,
    load_table,
    parse_zones,
    save_table,
)
from bookbus.consumers.paper.calibration.tape import Tape, capture_tape
from bookbus.schemas.instruments import SymbolError


def calibrate(
    captures: Annotated[list[Path], typer.Argument(help="Recordings, compressed or not.")],
    out: Annotated[Path | None, typer.Option(envvar="BOOKBUS_CALIBRATION_OUT", help="File to write.")] = None,
    validate_path: Annotated[
        Path | None, typer.Option("--validate", envvar="BOOKBUS_VALIDATE", help="Score this table instead.")
    ] = None,
    symbols: Annotated[str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated; default all.")] = "",
    zones: Annotated[
        str, typer.Option(envvar="BOOKBUS_ZONES", help="entry_min-entry_max/tp_min-tp_max in bps, comma-separated.")
    ] = fit.DEFAULT_ZONES,
    horizon: Annotated[
        float, typer.Option(envvar="BOOKBUS_HORIZON", min=0.1, max=86_400, help="Seconds an order may wait.")
    ] = 10.0,
    latency_ms: Annotated[
        float, typer.Option(envvar="BOOKBUS_LATENCY_MS", min=0, max=60_000, help="Time until an order takes effect.")
    ] = 50.0,
    order_notional: Annotated[
        float, typer.Option(envvar="BOOKBUS_ORDER_NOTIONAL", min=1e-9, help="Value of an order, in quote currency.")
    ] = 100.0,
    depth: Annotated[int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels a side.")] = 200,
    fit_share: Annotated[
        float, typer.Option(envvar="BOOKBUS_FIT_SHARE", min=0.1, max=0.9, help="Share of each recording to fit on.")
    ] = 0.7,
    minimum_samples: Annotated[
        int, typer.Option(envvar="BOOKBUS_MINIMUM_SAMPLES", min=2, help="A zone with fewer is unusable.")
    ] = 30,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="Seed of the targets within a zone.")] = 42,
    log_level: LogLevel = "error",
) -> None:
    """How often passive orders are filled along recordings of books and trades, by zone of entry and take-profit.

    The table is fitted on the first part of each recording and scored on the rest. With --validate, an existing table
    is scored on recordings that it was not fitted on.

    \b
      python -m consumers calibrate monday.jsonl.gz tuesday.jsonl.gz --out table.json
      python -m consumers calibrate monday.jsonl.gz --out table.json --symbols BTC --horizon 30 --zones 0-1/2-5,1-3/2-5
      python -m consumers calibrate friday.jsonl.gz --validate table.json
    """
    start_logging(log_level)
    if (out is None) == (validate_path is None):
        fail("give either --out to write a table or --validate to score one")
    names = split_names(symbols)
    try:
        specs = parse_zones(zones)
        method = Method(
            horizon_seconds=horizon,
            latency_ms=latency_ms,
            order_notional=order_notional,
            depth=depth,
            fit_share=fit_share,
            minimum_samples=minimum_samples,
            seed=seed,
        )
        with ended_by_signal():
            if validate_path is not None:
                table = load_table(validate_path)
                _print_scores(*fit.validate(table, _tapes(captures, names, table.method.depth)))
            elif out is not None:
                created_at = datetime.now(UTC).isoformat(timespec="seconds")
                table = fit.calibrate(_tapes(captures, names, depth), specs, method, created_at)
                save_table(table, out)
                _print_table(table)
                typer.echo(f"written to {out}")
    except (CalibrationError, SymbolError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror or error}")


def _tapes(captures: list[Path], symbols: tuple[str, ...], depth: int) -> list[Tape]:
    return [capture_tape(path, symbols, depth) for path in captures]


def _print_table(table: CalibrationTable) -> None:
    shown = Table("zone", "entry/tp", "buy filled", "of", "sell filled", "of", "held out", "usable", box=None)
    for zone in table.zones:
        shown.add_row(
            zone.zone_id,
            f"{zone.entry_min:g}-{zone.entry_max:g}/{zone.tp_min:g}-{zone.tp_max:g}",
            _ratio(zone.buy_fill_ratio, zone.buy_interval),
            str(zone.buy_samples),
            _ratio(zone.sell_fill_ratio, zone.sell_interval),
            str(zone.sell_samples),
            "-" if zone.hold_out_buy_ratio is None else f"{zone.hold_out_buy_ratio:.2f}",
            "yes" if zone.usable else "no",
        )
    Console().print(shown)
    for zone in table.zones:
        if not zone.usable:
            typer.echo(f"{zone.zone_id} is unusable: {zone.reason}")
    share = "unknown" if table.cancellation_share is None else f"{table.cancellation_share:.3f}"
    typer.echo(
        f"{table.total_events} entries, {table.unmatched_events} undecided; share of cancellations ahead {share} "
        f"of {table.cancellation_samples} recognised"
    )
    _print_scores(table.hold_out_buy, table.hold_out_sell)


def _print_scores(buy: Score, sell: Score) -> None:
    for name, score in (("entries", buy), ("exits", sell)):
        if score.brier is None or score.skill is None:
            typer.echo(f"{name}: nothing to score")
        else:
            typer.echo(
                f"{name}: Brier {score.brier:.4f} against {score.base_brier:.4f} for one base rate "
                f"(skill {score.skill:+.3f}) on {score.samples} not fitted on"
            )


def _ratio(ratio: float | None, interval: tuple[float, float] | None) -> str:
    return "-" if ratio is None or interval is None else f"{ratio:.2f} ({interval[0]:.2f}-{interval[1]:.2f})"
