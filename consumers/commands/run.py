"""`run`: paper trading on live books or on a recording."""

import dataclasses
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import msgspec
import typer
from msgspec.structs import replace

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    LogLevel,
    Prefix,
    RedisUrl,
    ended_by_signal,
    exchange_id,
    fail,
    split_names,
    start_logging,
    termination_signals,
)
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.commands.arbitrage import parse_fees
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.paper.calibration.table import CalibrationError
from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.market import Market, MultiMarket, ProviderMarket
from bookbus.consumers.paper.runner import Stop, run_captures, run_live
from bookbus.consumers.paper.settings import (
    DEFAULT_DURATION,
    PASSIVE_MODELS,
    SMOKE_DURATION,
    EntryMode,
    EntrySettings,
    FillModelMode,
    RunSettings,
    check,
)
from bookbus.consumers.paper.strategy_loader import SHARED, StrategySpec, specs_of
from bookbus.consumers.paper.strategy_runner import (
    LiveSource,
    StrategySettings,
    check_settings,
    run_strategies_live,
    run_strategies_recorded,
    summary,
)
from bookbus.consumers.reading import MAX_AGE
from bookbus.consumers.sources import SOURCES, Endpoint, SourceError, SourceSettings, open_source
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry, SymbolError, exchange_of

logger = logging.getLogger(__name__)

CAPTURE = "capture:"

_EXIT_CODES = {"interrupted": 130}

_ENTRY_PARAMETERS: Mapping[str, str] = {
    "entry-bps-mode": "mode",
    "entry-bps-min": "minimum",
    "entry-bps-max": "maximum",
    "entry-bps-seed": "seed",
    "tp-bps": "tp_bps",
}
_RUN_PARAMETERS = (
    "trade-interval",
    "max-hold",
    "sl-bps",
    "order-quantity",
    "order-notional",
    "fill-model",
    "fillmodel-mode",
    "calibrated-mode",
    "min-fill-probability",
    "calibration-path",
)

_INTERVAL_OPTIONS = (
    *(name.replace("-", "_") for name in (*_ENTRY_PARAMETERS, *_RUN_PARAMETERS) if name != "entry-bps-seed"),
    *("entry_bps_zone_weights", "max_notional", "max_daily_loss", "max_open_trades"),
)
"""Options of the strategy that buys at every interval."""


def run(
    context: typer.Context,
    l2_source: Annotated[
        str,
        typer.Option(envvar="BOOKBUS_L2_SOURCE", help="mock, upbit, binance, multi, redis or capture:FILE."),
    ] = "mock",
    symbols: Annotated[str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated, like BTC,ETH.")] = "BTC",
    strategy: Annotated[
        list[str] | None,
        typer.Option(envvar="BOOKBUS_STRATEGY", help="my_bot.py:MyBot, module:Class or a shipped one; repeatable."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", envvar="BOOKBUS_SET", help="Parameter of a strategy: name=value; repeatable."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", envvar="BOOKBUS_SHARED", help="All strategies trade on one account.")
    ] = False,
    latency: Annotated[
        str,
        typer.Option(
            envvar="BOOKBUS_LATENCY",
            help="Of strategies' orders, in ms: 50, or entry=80,cancel=60,response=feed,upbit:entry=FILE.",
        ),
    ] = "",
    smoke: Annotated[bool, typer.Option("--smoke", envvar="BOOKBUS_SMOKE", help="Run for 300 s.")] = False,
    duration_seconds: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_DURATION_SECONDS", help="Default 1200; a recording runs to its end."),
    ] = None,
    trade_interval: Annotated[
        float, typer.Option(envvar="BOOKBUS_TRADE_INTERVAL", help="Seconds from one decision to the next.")
    ] = 10.0,
    max_hold: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_MAX_HOLD", help="Seconds a position is held; default one interval."),
    ] = None,
    order_quantity: Annotated[
        float | None, typer.Option(envvar="BOOKBUS_ORDER_QUANTITY", help="Quantity of an order; default 0.001.")
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
        typer.Option(
            envvar="BOOKBUS_CALIBRATED_MODE",
            help="Fill a calibrated order by chance, or in part.",
        ),
    ] = "sampled",
    calibration_path: Annotated[
        Path | None, typer.Option(envvar="BOOKBUS_CALIBRATION_PATH", help="Table made by `calibrate`.")
    ] = None,
    fillmodel_mode: Annotated[
        FillModelMode,
        typer.Option(envvar="BOOKBUS_FILLMODEL_MODE", help="Score decisions by the table, or also reject zones."),
    ] = "none",
    min_fill_probability: Annotated[
        float, typer.Option(envvar="BOOKBUS_MIN_FILL_PROBABILITY", help="Minimum fill ratio of a zone in strict mode.")
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
        float | None, typer.Option(envvar="BOOKBUS_ENTRY_BPS_MAX", help="Default: the minimum.")
    ] = None,
    entry_bps_seed: Annotated[
        int, typer.Option(envvar="BOOKBUS_ENTRY_BPS_SEED", help="Seed of everything random in the run.")
    ] = 42,
    entry_bps_zone_weights: Annotated[
        str, typer.Option(envvar="BOOKBUS_ENTRY_BPS_ZONE_WEIGHTS", help="For zone_random: one weight for each zone.")
    ] = "",
    tp_bps: Annotated[float, typer.Option(envvar="BOOKBUS_TP_BPS", help="Take-profit above the entry price.")] = 12.0,
    sl_bps: Annotated[float, typer.Option(envvar="BOOKBUS_SL_BPS", help="Stop-loss below the entry price.")] = 12.0,
    fees: Annotated[str, typer.Option(envvar="BOOKBUS_FEES", help="Bps by exchange, like binance=7.5,upbit=5.")] = "",
    maker_fees: Annotated[
        str, typer.Option(envvar="BOOKBUS_MAKER_FEES", help="Of strategies; default as for --fees.")
    ] = "",
    cash: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_CASH", help="Of each exchange; default 10000, in KRW 10000000."),
    ] = None,
    inventory_notional: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_INVENTORY_NOTIONAL",
            min=0,
            help="Value of each symbol held on each exchange.",
        ),
    ] = 0.0,
    max_notional: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_MAX_NOTIONAL", help="Limit of a trade; default as for --cash."),
    ] = None,
    max_daily_loss: Annotated[
        float | None,
        typer.Option(envvar="BOOKBUS_MAX_DAILY_LOSS", help="Default 1000, in KRW 1000000; per UTC day."),
    ] = None,
    max_open_trades: Annotated[
        int, typer.Option(envvar="BOOKBUS_MAX_OPEN_TRADES", min=1, help="Limit for all symbols together.")
    ] = 10,
    max_age: Annotated[
        float, typer.Option(envvar="BOOKBUS_MAX_AGE", help="Seconds without confirmation until a book is stale.")
    ] = MAX_AGE,
    depth: Annotated[
        int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels a side of a recording's books.")
    ] = 20,
    grid: Annotated[
        str, typer.Option(envvar="BOOKBUS_GRID", help="Vary options, or a strategy's parameters: 'tp-bps=8,12'.")
    ] = "",
    sample_interval: Annotated[
        float,
        typer.Option(envvar="BOOKBUS_SAMPLE_INTERVAL", min=0.001, help="Seconds between points of an equity curve."),
    ] = 10.0,
    session_tag: Annotated[str, typer.Option(envvar="BOOKBUS_SESSION_TAG", help="Part of the session's name.")] = "",
    output_dir: Annotated[Path, typer.Option(envvar="BOOKBUS_OUTPUT_DIR", help="For all files.")] = Path("logs/paper"),
    exchange: Annotated[
        str,
        typer.Option(
            envvar="BOOKBUS_EXCHANGE", help="Whose books redis reads; several for strategies.", callback=exchange_id
        ),
    ] = "binance",
    binance_ws_url: Annotated[str, typer.Option(envvar="BOOKBUS_BINANCE_WS_URL", help="Other WebSocket URL.")] = "",
    binance_rest_url: Annotated[str, typer.Option(envvar="BOOKBUS_BINANCE_REST_URL", help="Other REST URL.")] = "",
    upbit_ws_url: Annotated[str, typer.Option(envvar="BOOKBUS_UPBIT_WS_URL", help="Other WebSocket URL.")] = "",
    upbit_rest_url: Annotated[str, typer.Option(envvar="BOOKBUS_UPBIT_REST_URL", help="Other REST URL.")] = "",
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "info",
) -> None:
    """Trade on paper: your own --strategy, or one decision for each interval and symbol, exit by take-profit, stop-loss
    or time. Every price comes from the book; a missing, stale or suspect book is not traded on. Writes its files into
    --output-dir.

    \b
      python -m consumers paper --strategy my_bot.py:MyBot --l2-source redis --set size=0.01
      python -m consumers paper --strategy two_sided_quoter --l2-source capture:btc.jsonl.gz --grid "lean_bps=1,2"
      python -m consumers run --l2-source redis --smoke
      python -m consumers run --l2-source multi --symbols BTC,ETH --inventory-notional 1000
      python -m consumers run --l2-source capture:btc.jsonl.gz --fill-model queue --entry-bps-min 0
      python -m consumers run --l2-source capture:btc.jsonl.gz --grid "tp-bps=8,12 sl-bps=6,12"
    """
    start_logging(log_level)
    try:
        if strategy:
            _refuse_interval_options(context)
            plan = StrategySettings(
                source=l2_source,
                symbols=split_names(symbols) or fail("--symbols names nothing"),
                duration=_duration(l2_source, duration_seconds, smoke),
                latency=latency,
                fees=parse_fees(fees),
                maker_fees=parse_fees(maker_fees),
                cash=cash,
                inventory_notional=inventory_notional,
                max_age=max_age,
                depth=depth,
                sample_seconds=sample_interval,
                seed=entry_bps_seed,
                session_tag=session_tag,
            )
            endpoints = {
                "binance": Endpoint(binance_ws_url or None, binance_rest_url or None),
                "upbit": Endpoint(upbit_ws_url or None, upbit_rest_url or None),
            }
            sources = SourceSettings(redis_url=redis, prefix=prefix, exchange=exchange, endpoints=endpoints)
            specs = specs_of(strategy, parameters or (), grid)
            if shared:
                specs = [StrategySpec(SHARED, members=tuple(specs))]
            raise typer.Exit(_run_strategies(specs, plan, sources, output_dir))
        if parameters:
            fail("--set is for the parameters of a --strategy")
        if order_quantity is not None and order_notional is not None:
            fail("give either --order-quantity or --order-notional")
        settings = RunSettings(
            source=_known_source(l2_source),
            symbols=split_names(symbols) or fail("--symbols names nothing"),
            duration=_duration(l2_source, duration_seconds, smoke),
            trade_interval=trade_interval,
            max_hold=max_hold,
            order_quantity=0.001 if order_quantity is None else order_quantity,
            order_notional=order_notional,
            fill_model=fill_model,
            calibrated_mode=calibrated_mode,
            fillmodel_mode=fillmodel_mode,
            calibration_path=None if calibration_path is None else str(calibration_path),
            min_fill_probability=min_fill_probability,
            entry=_entry_settings(
                entry_bps_mode, entry_bps_min, entry_bps_max, entry_bps_seed, entry_bps_zone_weights, tp_bps
            ),
            sl_bps=sl_bps,
            fees=parse_fees(fees),
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
            endpoints={
                "binance": Endpoint(binance_ws_url or None, binance_rest_url or None),
                "upbit": Endpoint(upbit_ws_url or None, upbit_rest_url or None),
            },
            seed=entry_bps_seed,
            max_age=max_age,
        )
        check(settings)
        if l2_source.startswith(CAPTURE):
            raise typer.Exit(_run_on_recording(settings, grid, output_dir))
        if grid:
            fail("--grid goes over a recording: use --l2-source capture:FILE")
        raise typer.Exit(_run_on_source(settings, sources, output_dir))
    except (SourceError, BusConnectionError, CalibrationError, CaptureError, SymbolError, ValueError, OSError) as error:
        fail(str(error))


def combinations(settings: RunSettings, text: str) -> dict[str, RunSettings]:
    """Settings of every combination of a grid like `tp-bps=8,12 sl-bps=6,12`, by its text. Raises ValueError."""
    found: dict[str, RunSettings] = {}
    for combination in product(*(_axis(part) for part in text.split())):
        changed = settings
        for name, value in combination:
            changed = _changed(changed, name, value)
        found[" ".join(f"{name}={value}" for name, value in combination)] = changed
    if len(set(map(msgspec.json.encode, found.values()))) < len(found):
        raise ValueError(f"--grid {text}: two combinations are the same run")
    return found


def _axis(text: str) -> list[tuple[str, str]]:
    name, equals, values = text.partition("=")
    name = name.removeprefix("--")
    known = (*_ENTRY_PARAMETERS, *_RUN_PARAMETERS)
    if not equals or name not in known:
        raise ValueError(f"--grid {text}: write parameter=value,value with any of {', '.join(known)}")
    return [(name, value) for value in dict.fromkeys(values.split(","))]


def _changed(settings: RunSettings, name: str, value: str) -> RunSettings:
    plain = msgspec.to_builtins(settings)
    if name in _ENTRY_PARAMETERS:
        plain["entry"][_ENTRY_PARAMETERS[name]] = value
    else:
        plain[name.replace("-", "_")] = value
    try:
        return msgspec.convert(plain, RunSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"--grid {name}={value}: {error}") from None


def _known_source(source: str) -> str:
    """Raises ValueError for an unknown source."""
    if source in SOURCES or (source.startswith(CAPTURE) and source != CAPTURE):
        return source
    raise ValueError(f"--l2-source {source}: use {', '.join(SOURCES)} or {CAPTURE}FILE")


def _duration(source: str, seconds: float | None, smoke: bool) -> float | None:
    """Seconds to run; None runs to the end of a recording."""
    if smoke:
        return SMOKE_DURATION
    if seconds is not None:
        return seconds
    return None if source.startswith(CAPTURE) else DEFAULT_DURATION


def _entry_settings(
    mode: EntryMode, minimum: float, maximum: float | None, seed: int, weights: str, tp_bps: float
) -> EntrySettings:
    try:
        numbers = tuple(float(weight) for weight in weights.split(",") if weight.strip())
    except ValueError:
        raise ValueError(f"--entry-bps-zone-weights {weights}: write numbers, comma-separated") from None
    return EntrySettings(mode, minimum, minimum if maximum is None else maximum, seed, numbers, tp_bps)


def _run_on_source(settings: RunSettings, sources: SourceSettings, directory: Path) -> int:
    """Trade on a live source. Returns the exit code; raises like `open_source` and `run_live`."""
    if settings.fill_model in PASSIVE_MODELS and settings.source == "multi":
        raise ValueError(f"--fill-model {settings.fill_model} waits on one exchange: use another source than multi")
    with ended_by_signal():
        provider = open_source(settings.source, settings.symbols, sources)
        try:
            with _asked_by_signal() as stop:
                market = _market(settings, provider, sources)
                listed = _listed_instruments(market.exchanges, sources)
                kpi = run_live(settings, market, directory, stop, logger.info, listed=listed)
        finally:
            provider.stop()
    typer.echo(_summary(kpi))
    return _EXIT_CODES.get(kpi.end_reason, 0)


def _refuse_interval_options(context: typer.Context) -> None:
    """Options that a strategy would not see are a mistake."""
    for name in _INTERVAL_OPTIONS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            fail(f"--{name.replace('_', '-')} is an option of runs without --strategy")


def _run_strategies(
    specs: Sequence[StrategySpec], settings: StrategySettings, sources: SourceSettings, directory: Path
) -> int:
    """Run strategies on paper. Returns the exit code; raises like the runs."""
    check_settings(settings)
    began = time.monotonic()
    with ended_by_signal():
        if settings.source.startswith(CAPTURE):
            paths = [Path(name) for name in split_names(settings.source.removeprefix(CAPTURE))]
            # Without the directories: the same recordings give the same run wherever they lie.
            named = replace(settings, source=CAPTURE + ",".join(path.name for path in paths))
            with _asked_by_signal() as stop:
                figures = run_strategies_recorded(specs, named, paths, directory, stop, logger.info)
        else:
            with ExitStack() as opened:
                providers = _open_each(settings, sources, opened)
                listed: dict[str, InstrumentRegistry] = {}
                for exchange in providers:
                    listed |= _listed_instruments([exchange], sources)
                live = LiveSource(providers, listed)
                opened.callback(live.close)
                with _asked_by_signal() as stop:
                    figures = run_strategies_live(specs, settings, live, directory, stop, logger.info)
    for one in figures:
        typer.echo(summary(one))
    if settings.source.startswith(CAPTURE):
        took = time.monotonic() - began
        recorded = max(one.actual_duration_seconds for one in figures)
        typer.echo(f"{recorded:.0f} s of the recording in {took:.1f} s: {recorded / took:.0f} times as fast")
    if any(one.error for one in figures):
        return 1
    return _EXIT_CODES.get(figures[0].end_reason, 0)


def _open_each(settings: StrategySettings, sources: SourceSettings, opened: ExitStack) -> dict[str, MarketDataProvider]:
    """A started provider of each exchange, by its id; `opened` stops them."""
    source = _known_source(settings.source)
    wanted = {
        "redis": [(exchange, "redis") for exchange in split_names(sources.exchange)],
        "multi": [(exchange, exchange) for exchange in sources.exchanges],
        "real": [("upbit", "upbit")],
    }.get(source, [(source, source)])
    providers: dict[str, MarketDataProvider] = {}
    for exchange, name in wanted:
        provider = open_source(
            name, settings.symbols, dataclasses.replace(sources, exchange=exchange, max_age=settings.max_age)
        )
        opened.callback(provider.stop)
        providers[exchange] = provider
    return providers


def _market(settings: RunSettings, provider: MarketDataProvider, sources: SourceSettings) -> Market:
    if isinstance(provider, MultiExchangeProvider):
        return MultiMarket(provider, sources.exchanges)
    exchange = {"redis": sources.exchange, "real": "upbit"}.get(settings.source, settings.source)
    return ProviderMarket(provider, exchange, settings.fees, with_trades=settings.fill_model == "queue")


def _run_on_recording(settings: RunSettings, grid: str, directory: Path) -> int:
    """Trade on a recording with every combination of the grid. Returns the exit code; raises like `run_captures`."""
    path = Path(settings.source.removeprefix(CAPTURE))
    # Without the directory: the same recording gives the same run wherever it lies.
    named = replace(settings, source=f"{CAPTURE}{path.name}")
    runs = combinations(named, grid) if grid else {"": named}
    for one in runs.values():
        check(one)
    began = time.monotonic()
    with ended_by_signal(), _asked_by_signal() as stop:
        kpis = run_captures(list(runs.values()), path, directory, stop, logger.info)
    took = time.monotonic() - began
    for combination, kpi in zip(runs, kpis, strict=True):
        typer.echo(" ".join(filter(None, [combination, _summary(kpi)])))
    recorded = max(kpi.actual_duration_seconds for kpi in kpis)
    typer.echo(f"{recorded:.0f} s of the recording in {took:.1f} s: {recorded / took:.0f} times as fast")
    return _EXIT_CODES.get(kpis[0].end_reason, 0)


@contextmanager
def _asked_by_signal() -> Iterator[Stop]:
    """The first SIGINT, SIGTERM or SIGHUP asks the run to end and to write its results. A second one ends the process,
    and so does the first while no run has begun."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *termination_signals())}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.ask("interrupted" if number == signal.SIGINT else "terminated")
        handler = before[signal.Signals(number)]
        signal.signal(number, handler)
        if not stop.polled and callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(kpi: Kpi) -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in kpi.skipped_decisions.items()) or "none"
    return (
        f"{kpi.session_id}: {kpi.end_reason} after {kpi.actual_duration_seconds:.0f} s, "
        f"{kpi.closed_trades} trades, {kpi.fill_events_count} fill events, "
        f"pnl {kpi.total_pnl:+.4f} {kpi.quote} after {kpi.fees:.4f} of fees; skipped: {skipped}\n"
        f"  {kpi.fill_events_path}  sha256 {kpi.fill_events_sha256}"
    )


def _listed_instruments(exchanges: Sequence[str], sources: SourceSettings) -> dict[str, InstrumentRegistry]:
    """Tick, step and minimum value of instruments, as a feeder on this machine cached them.

    Empty for several exchanges, because converted prices are on no tick.
    """
    if len(exchanges) > 1 or exchanges[0] not in EXCHANGES:
        return {}
    (exchange,) = exchanges
    try:
        # Needs the `feeder` extra, which a reader of the bus may not have installed.
        from bookbus.consumers.direct_provider import known_instruments
    except ImportError:
        instruments = None
    else:
        instruments = known_instruments(exchange, sources.endpoints.get(exchange, Endpoint()).rest_url)
    if not instruments:
        logger.info("ticks, steps and minimum values of %s are unknown: orders are not checked against them", exchange)
        return {}
    return {exchange: InstrumentRegistry(exchange_of(exchange), instruments, offline=True)}
