"""Runs as they were asked for on the command line: opened, ended by their time or a signal, summed up in a line."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from bookbus.consumers.commands.options import ended_by_signal
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.paper import run_options
from bookbus.consumers.paper.grid import grid as combinations
from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.market import Market, MultiMarket, ProviderMarket
from bookbus.consumers.paper.runner import Stop, run_live
from bookbus.consumers.paper.settings import RunSettings, check
from bookbus.consumers.sources import SourceSettings, open_source

logger = logging.getLogger(__name__)

_EXIT_CODES = {"interrupted": 130}


def run_on_source(settings: RunSettings, sources: SourceSettings, directory: Path) -> int:
    """Trade on a live source. Returns the exit code; raises what opening the source and the run raise."""
    if why := run_options.why_not_passive(settings):
        raise ValueError(why)
    with ended_by_signal():
        provider = open_source(settings.source, settings.symbols, sources)
        try:
            with _asked_by_signal() as stop:
                market = _market(settings, provider, sources)
                listed = run_options.listed_instruments(market.exchanges, sources)
                kpi = run_live(settings, market, directory, stop, logger.info, listed=listed)
        finally:
            provider.stop()
    typer.echo(_summary(kpi))
    return _EXIT_CODES.get(kpi.end_reason, 0)


def _market(settings: RunSettings, provider: MarketDataProvider, sources: SourceSettings) -> Market:
    if isinstance(provider, MultiExchangeProvider):
        return MultiMarket(provider, sources.exchanges)
    exchange = {"redis": sources.exchange, "real": "upbit"}.get(settings.source, settings.source)
    return ProviderMarket(provider, exchange, settings.fees, with_trades=settings.fill_model == "queue")


def run_on_recording(settings: RunSettings, grid: str, directory: Path) -> int:
    """Trade on a recording, once for each combination of the grid. Returns the exit code; raises as `run_captures`."""
    # What plays recordings is an extra that a reader of the bus need not have installed.
    from bookbus.consumers.paper.capture_run import run_captures

    path = Path(settings.source.removeprefix(run_options.CAPTURE))
    # Not where it lies: the same recording gives the same run wherever it is.
    named = run_options.renamed(settings, f"{run_options.CAPTURE}{path.name}")
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
    """The first Ctrl-C or SIGTERM asks the run to end, so that its results are written; a second one ends it."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        stop.ask("interrupted" if number == signal.SIGINT else "terminated")
        signal.signal(number, before[signal.Signals(number)])

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
