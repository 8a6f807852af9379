"""One run of several symbols: connects market, traders, broker and records, and steps them through time."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from bookbus.consumers.paper.broker import PaperBroker
from bookbus.consumers.paper.calibration.table import CalibrationError, CalibrationTable, load_table
from bookbus.consumers.paper.execution import make_execution
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.fills.queue import QueueFill, TimeSource
from bookbus.consumers.paper.kpi import Kpi, make_kpi
from bookbus.consumers.paper.market import Market, VenueQuote, mid_on
from bookbus.consumers.paper.records import Gap, RunRecorder
from bookbus.consumers.paper.schedule import Schedule, later
from bookbus.consumers.paper.settings import PASSIVE_MODELS, EntryChooser, RunSettings
from bookbus.consumers.paper.trader import SymbolTrader
from bookbus.schemas.instruments import Exchange, Instrument, InstrumentRegistry, exchange_of, guess_instrument
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)
_PACKAGE_LOGGER = logging.getLogger("bookbus")
"""Its records include what providers log about their connections."""


class Calibration(NamedTuple):
    """A table with its version: the format's version and the first digits of the file's SHA-256."""

    table: CalibrationTable
    version: str


class TradingSession:
    """One run of several symbols. Call `step` whenever something may have happened, and at the latest at `next_due`;
    `finish` writes the figures.

    Times are seconds since 1970 of the caller's clock, which must not go back.
    """

    def __init__(
        self,
        settings: RunSettings,
        market: Market,
        directory: Path,
        session_id: str,
        began: float,
        time_source: TimeSource,
        listed: Mapping[str, InstrumentRegistry] = MappingProxyType({}),
        calibration: Calibration | None = None,
    ) -> None:
        """`listed` has the instruments of each exchange whose rules are known.

        Raises ValueError for settings that contradict each other, OSError if the files cannot be written.
        """
        currency = _quote_currency(market.symbols)
        table, version = calibration or (None, None)
        choosers = {
            symbol: EntryChooser(settings.entry, symbol, table.zones if table is not None else ())
            for symbol in market.symbols
        }
        execution = make_execution(settings, table, time_source)
        self.began = began
        self._settings = settings
        self._market = market
        self._mismatches = () if table is None else mismatches(settings, table, market.exchanges, market.symbols)
        self._records = RunRecorder(directory, session_id)
        self._records.counters.gaps = {symbol: Gap() for symbol in market.symbols}
        self._broker = PaperBroker(settings, currency, market.exchanges, execution, self._records, version)
        self._broker.update_daily_loss(began)
        self._traders = {
            symbol: SymbolTrader(
                symbol, settings, self._broker, table, chooser, _instruments(market.exchanges, symbol, listed)
            )
            for symbol, chooser in choosers.items()
        }
        self._ungranted = set(product(market.exchanges, market.symbols)) if settings.inventory_notional else set()
        self._decisions = Schedule(began, settings.trade_interval)
        self._quotes: dict[str, list[VenueQuote]] = {}
        self._log = logging.FileHandler(directory / f"run_{session_id}.log", "w")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        _PACKAGE_LOGGER.addHandler(self._log)
        if self._mismatches:
            logger.warning("the calibration does not apply to this run: %s", "; ".join(self._mismatches))

    @property
    def ends(self) -> float:
        """When the run is over; infinity without a limit."""
        duration = self._settings.duration
        return float("inf") if duration is None else later(self.began, duration)

    @property
    def next_due(self) -> float:
        """When a step is due even if nothing happens."""
        deadline = min(trader.next_due for trader in self._traders.values())
        return min(self._decisions.next_due, self._records.markouts.next_due, deadline, self.ends)

    def needs_step(self, event: TapeEvent) -> bool:
        """Whether a step is due for this event: a new book, or a trade that may fill a waiting order."""
        return isinstance(event, OrderBookSnapshot) or self._traders[event.symbol].has_waiting_order

    def step(self, now: float, symbols: Sequence[str] | None = None) -> None:
        """Do what is due now. With `symbols`, only these are looked at and no decision is made."""
        self._records.counters.steps += 1
        for symbol in self._market.symbols if symbols is None else symbols:
            self._step(now, symbol)
        if symbols is not None:
            return
        self._records.write_markouts(now, lambda symbol, exchange: mid_on(self._quotes[symbol], exchange))
        if now < self.ends and (due := self._decisions.take_due(now)) is not None:
            self._decide(now, *due)

    def finish(self, now: float, end_reason: str, error: str = "") -> Kpi:
        """Close open trades, unless the run ends by an error, write the figures, close the files."""
        if not error:
            for symbol, trader in self._traders.items():
                trader.end(now, self._market.quotes(symbol))
        kpi = make_kpi(self._broker, self._market, self._mismatches, self.began, now, end_reason, error)
        self._records.write_kpi(kpi)
        self._records.close()
        _PACKAGE_LOGGER.removeHandler(self._log)
        self._log.close()
        return kpi

    def progress(self, now: float) -> str:
        counters = self._records.counters
        skipped = counters.skipped.total() - counters.skipped["open_trade"]
        states = " ".join(f"{symbol} {_state(quotes)}" for symbol, quotes in self._quotes.items())
        return (
            f"{now - self.began:6.0f} s  {counters.decisions} decisions, {counters.closed} trades, "
            f"{self._records.fills} fill events, {skipped} skipped, "
            f"pnl {self._broker.pnl:+.4f} {self._broker.currency}  {states}"
        )

    def _step(self, now: float, symbol: str) -> None:
        events = self._market.events(symbol, now)
        # Read once: every decision of this step is made on the same books.
        quotes = self._quotes[symbol] = self._market.quotes(symbol)
        tradable = [quote.book for quote in quotes if not quote.reject_reason and quote.book is not None]
        self._records.counters.gaps[symbol].observe(now, bool(tradable))
        if tradable:
            mid_prices = [mid for book in tradable if (mid := book.mid()) is not None]
            self._broker.mark(symbol, math.fsum(mid_prices) / len(mid_prices))
        if self._ungranted:
            self._grant(symbol, quotes)
        self._traders[symbol].step(now, quotes, events)

    def _decide(self, now: float, due: float, missed: int) -> None:
        """Make the decision of `due`; earlier ones that were missed count as skipped."""
        self._broker.update_daily_loss(now)
        counters = self._records.counters
        for symbol, trader in self._traders.items():
            if missed:
                counters.skipped["runner_late"] += missed
                counters.decisions += missed
            # Counted from when it was due, a trade of one interval is over when the next decision is made.
            trader.decide(now, due, self._quotes[symbol])

    def _grant(self, symbol: str, quotes: Sequence[VenueQuote]) -> None:
        """Give each exchange its first inventory as soon as the quantity can be computed from a price."""
        for exchange in self._market.exchanges:
            mid = mid_on(quotes, exchange)
            if (exchange, symbol) in self._ungranted and mid is not None:
                self._ungranted.discard((exchange, symbol))
                self._broker.portfolio.grant(exchange, symbol, self._settings.inventory_notional / mid)


def calibration_of(settings: RunSettings) -> Calibration | None:
    """The calibration that the settings name; None if they name none.

    Raises CalibrationError for one that cannot be read, or that decides about orders unlike its own.
    """
    if settings.calibration_path is None:
        return None
    path = Path(settings.calibration_path)
    table = load_table(path)
    _require_same_horizon(settings, table)
    return Calibration(table, f"{table.version}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}")


def mismatches(
    settings: RunSettings, table: CalibrationTable, exchanges: Sequence[str], symbols: Sequence[str]
) -> list[str]:
    """How the orders of the table differ from those of the run; empty if its fill ratios hold for the run."""
    found = []
    if settings.fill_model not in PASSIVE_MODELS:
        found.append(f"its orders wait, those of {settings.fill_model} take")
    elif settings.hold != table.method.horizon_seconds:
        found.append(f"its orders wait {table.method.horizon_seconds:g} s, these {settings.hold:g} s")
    latency_ms = QueueFill().latency_us / 1e3
    if settings.fill_model == "queue" and table.method.latency_ms != latency_ms:
        found.append(f"its orders take {table.method.latency_ms:g} ms to arrive, these {latency_ms:g} ms")
    known = {(tape.exchange, symbol) for tape in table.tapes for symbol in tape.symbols}
    unknown = [f"{symbol} on {name}" for name in exchanges for symbol in symbols if (name, symbol) not in known]
    if unknown:
        found.append(f"no tape of it holds {', '.join(unknown)}")
    return found


def session_name(began: float, settings: RunSettings) -> str:
    """The UTC start time and the session tag."""
    parts = [datetime.fromtimestamp(began, UTC).strftime("%Y%m%d_%H%M%S")]
    if settings.session_tag:
        parts.append(settings.session_tag)
    return "_".join(parts)


def recorded_session_name(began: float, settings: RunSettings, calibration: Calibration | None) -> str:
    """The session name with eight digits of the settings' hash: the same settings have the same name.

    A calibration counts by its version, not by its path.
    """
    named = replace(settings, calibration_path=calibration.version if calibration is not None else None)
    return f"{session_name(began, settings)}_{hashlib.sha256(msgspec.json.encode(named)).hexdigest()[:8]}"


def _require_same_horizon(settings: RunSettings, table: CalibrationTable) -> None:
    """Raises CalibrationError for a table that decides about orders that wait longer or shorter than its own."""
    decides = settings.fill_model == "calibrated" or settings.fillmodel_mode == "strict"
    horizon = table.method.horizon_seconds
    if decides and settings.fill_model in PASSIVE_MODELS and settings.hold != horizon:
        raise CalibrationError(
            f"{settings.calibration_path} was fitted on orders that wait {horizon:g} s, and these would wait "
            f"{settings.hold:g} s: use --max-hold {horizon:g}, or a table made with --horizon {settings.hold:g}"
        )


def _quote_currency(symbols: Sequence[str]) -> str:
    quotes = sorted({symbol.rpartition("-")[2] for symbol in symbols})
    if len(quotes) != 1:
        raise ValueError(f"one run has one quote currency, these symbols have {' and '.join(quotes)}: run them apart")
    return quotes[0]


def _instruments(
    exchanges: Sequence[str], symbol: str, listed: Mapping[str, InstrumentRegistry]
) -> dict[str, Instrument]:
    """The symbol's rules on each exchange; its name alone where the exchange has no listed rules."""
    return {
        exchange: listed[exchange].resolve(symbol)
        if exchange in listed
        else guess_instrument(_exchange(exchange), symbol)
        for exchange in exchanges
    }


def _exchange(exchange: str) -> Exchange:
    return Exchange(exchange, "USDT") if exchange == "mock" else exchange_of(exchange)


def _state(quotes: Sequence[VenueQuote]) -> str:
    return "/".join(quote.entry_reason or f"live {(quote.age or 0) * 1e3:.0f} ms" for quote in quotes)
