"""`run`: paper trades on live books or a recording."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bookbus.consumers.bus.address import BusConnectionError
from bookbus.consumers.commands.options import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    LogLevel,
    Prefix,
    RedisUrl,
    fail,
    split_names,
    start_logging,
)
from bookbus.consumers.freshness import MAX_AGE
from bookbus.consumers.paper import run_options
from bookbus.consumers.paper.asked_runs import run_on_recording, run_on_source
from bookbus.consumers.paper.calibration.table import CalibrationError
from bookbus.consumers.paper.entry_zones import EntryMode
from bookbus.consumers.paper.settings import FillModelMode, RunSettings, check
from bookbus.consumers.sources import SourceError, SourceSettings
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.instruments import SymbolError

EXAMPLES = """
Paper trades: one decision an interval and symbol, out again by take-profit, stop-loss or time. Every price comes from
the book; a book that is missing, stale or suspect is not traded on. Writes fill_events, markouts, decisions, kpi and a
log into --output-dir.

\b
  python -m consumers run --l2-source redis --smoke
  python -m consumers run --l2-source multi --symbols BTC,ETH --inventory-notional 1000
  python -m consumers run --l2-source capture:btc.jsonl.gz --fill-model queue --entry-bps-min 0
  python -m consumers run --l2-source capture:btc.jsonl.gz --grid "tp-bps=8,12 sl-bps=6,12"
"""


def run(
    l2_source: Annotated[
        str,
        typer.Option(envvar="BOOKBUS_L2_SOURCE", help="mock, upbit, binance, multi, redis or capture:FILE."),
    ] = "mock",
    symbols: Annotated[str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated, like BTC,ETH.")] = "BTC",
    smoke: Annotated[bool, typer.Option("--smoke", envvar="BOOKBUS_SMOKE", help="Run for 300 s.")] = False,
    duration_seconds: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_DURATION_SECONDS", help="1200 unless given; a recording runs to its end."),
    ] = None,
    trade_interval: Annotated[
        float, typer.Option(envvar="BOOKBUS_TRADE_INTERVAL", help="Seconds from one decision to the next.")
    ] = 10.0,
    max_hold: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_MAX_HOLD", help="Seconds a position is held; one interval unless given."),
    ] = None,
    order_quantity: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_ORDER_QUANTITY", help="Of an order; 0.001 unless given.")
    ] = None,
    order_notional: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_ORDER_NOTIONAL", help="Value of an order, in place of a quantity.")
    ] = None,
    fill_model: Annotated[
        str,
        typer.Option(envvar="BOOKBUS_FILL_MODEL", help="simple, advanced, book_walk, queue or calibrated."),
    ] = "book_walk",
    calibrated_mode: Annotated[
        Literal["sampled", "expected"],
        typer.Option(envvar="BOOKBUS_CALIBRATED_MODE", help="Whether calibrated orders fill or not, or in part."),
    ] = "sampled",
    calibration_path: Annotated[
        Path | None, typer.Option(envvar="BOOKBUS_CALIBRATION_PATH", help="Table made by `calibrate`.")
    ] = None,
    fillmodel_mode: Annotated[
        FillModelMode,
        typer.Option(envvar="BOOKBUS_FILLMODEL_MODE", help="Score decisions by the table, or also refuse zones."),
    ] = "none",
    min_fill_probability: Annotated[
        float, typer.Option(envvar="BOOKBUS_MIN_FILL_PROBABILITY", help="What strict mode asks of a zone.")
    ] = 0.3,
    entry_bps_mode: Annotated[
        EntryMode, typer.Option(envvar="BOOKBUS_ENTRY_BPS_MODE", help="How each decision's entry is chosen.")
    ] = "fixed",
    entry_bps_min: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_ENTRY_BPS_MIN",
            help="Waiting orders: how far behind the best bid; others: at most how far beyond the best ask.",
        ),
    ] = 10.0,
    entry_bps_max: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_ENTRY_BPS_MAX", help="The minimum unless given.")
    ] = None,
    entry_bps_seed: Annotated[
        int, typer.Option(envvar="BOOKBUS_ENTRY_BPS_SEED", help="Of all that is drawn in the run.")
    ] = 42,
    entry_bps_zone_weights: Annotated[
        str, typer.Option(envvar="BOOKBUS_ENTRY_BPS_ZONE_WEIGHTS", help="For zone_random: one number a zone.")
    ] = "",
    tp_bps: Annotated[float, typer.Option(envvar="BOOKBUS_TP_BPS", help="Take-profit, above the entry price.")] = 12.0,
    sl_bps: Annotated[float, typer.Option(envvar="BOOKBUS_SL_BPS", help="Stop-loss, below the entry price.")] = 12.0,
    fees: Annotated[str, typer.Option(envvar="BOOKBUS_FEES", help="Bps by exchange, like binance=7.5,upbit=5.")] = "",
    cash: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_CASH", help="Of each exchange; 10000, in KRW 10000000.")
    ] = None,
    inventory_notional: Annotated[
        float,
        typer.Option(envvar="BOOKBUS_INVENTORY_NOTIONAL", min=0, help="What each exchange holds of each symbol."),
    ] = 0.0,
    max_notional: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_MAX_NOTIONAL", help="A trade's limit; default as --cash.")
    ] = None,
    max_daily_loss: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_MAX_DAILY_LOSS", help="1000, in KRW 1000000, unless given.")
    ] = None,
    max_open_trades: Annotated[
        int, typer.Option(envvar="BOOKBUS_MAX_OPEN_TRADES", min=1, help="Of all symbols together.")
    ] = 10,
    max_age: Annotated[
        float, typer.Option(envvar="BOOKBUS_MAX_AGE", help="Seconds without confirmation until a book is stale.")
    ] = MAX_AGE,
    depth: Annotated[
        int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels a side, of a recording.")
    ] = 20,
    grid: Annotated[
        str, typer.Option(envvar="BOOKBUS_GRID", help="Vary options over a recording: 'tp-bps=8,12 sl-bps=6,12'.")
    ] = "",
    session_tag: Annotated[str, typer.Option(envvar="BOOKBUS_SESSION_TAG", help="Part of the session's name.")] = "",
    output_dir: Annotated[Path, typer.Option(envvar="BOOKBUS_OUTPUT_DIR", help="For all files.")] = Path("logs/paper"),
    exchange: Annotated[
        str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Whose books source redis reads.")
    ] = "binance",
    binance_ws_url: Annotated[str, typer.Option(envvar="BOOKBUS_BINANCE_WS_URL", help="Another address.")] = "",
    binance_rest_url: Annotated[str, typer.Option(envvar="BOOKBUS_BINANCE_REST_URL", help="Another address.")] = "",
    upbit_ws_url: Annotated[str, typer.Option(envvar="BOOKBUS_UPBIT_WS_URL", help="Another address.")] = "",
    upbit_rest_url: Annotated[str, typer.Option(envvar="BOOKBUS_UPBIT_REST_URL", help="Another address.")] = "",
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "info",
) -> None:
    """Paper trades on live books or a recording."""
    start_logging(log_level)
    try:
        if order_quantity is not None and order_notional is not None:
            fail("give either --order-quantity or --order-notional")
        settings = RunSettings(
            source=run_options.known_source(l2_source),
            symbols=tuple(split_names(symbols, "--symbols")),
            duration=run_options.duration_of(l2_source, duration_seconds, smoke),
            trade_interval=trade_interval,
            max_hold=max_hold,
            order_quantity=0.001 if order_quantity is None else order_quantity,
            order_notional=order_notional,
            fill_model=fill_model,
            calibrated_mode=calibrated_mode,
            fillmodel_mode=fillmodel_mode,
            calibration_path=None if calibration_path is None else str(calibration_path),
            min_fill_probability=min_fill_probability,
            entry=run_options.entry_settings(
                entry_bps_mode, entry_bps_min, entry_bps_max, entry_bps_seed, entry_bps_zone_weights, tp_bps
            ),
            sl_bps=sl_bps,
            fees=run_options.fees_of(fees),
            cash=cash,
            inventory_notional=inventory_notional,
            max_notional=max_notional,
            max_daily_loss=max_daily_loss,
            max_open_trades=max_open_trades,
            max_age=max_age,
            depth=depth,
            session_tag=session_tag,
        )
        sources = SourceSettings(
            redis_url=redis,
            prefix=prefix,
            exchange=exchange,
            fees=settings.fees or None,
            endpoints=run_options.endpoints_of(
                {"binance": (binance_ws_url, binance_rest_url), "upbit": (upbit_ws_url, upbit_rest_url)}
            ),
            seed=entry_bps_seed,
            max_age=max_age,
        )
        check(settings)
        if l2_source.startswith(run_options.CAPTURE):
            raise typer.Exit(run_on_recording(settings, grid, output_dir))
        if grid:
            fail("--grid goes over a recording: use --l2-source capture:FILE")
        raise typer.Exit(run_on_source(settings, sources, output_dir))
    except (SourceError, BusConnectionError, CalibrationError, CaptureError, SymbolError, ValueError, OSError) as error:
        fail(str(error))


run.__doc__ = EXAMPLES
