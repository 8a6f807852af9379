"""One run: steps through time, a decision for each symbol at each interval, the figures at the end."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from bookbus.consumers.paper.account import Portfolio, RiskGuard
from bookbus.consumers.paper.broker import PaperBroker
from bookbus.consumers.paper.calibration.table import CalibrationError, CalibrationTable, load_table
from bookbus.consumers.paper.execution import make_execution
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.fills.queue import QueueFill, TimeSource
from bookbus.consumers.paper.kpi import Kpi, make_kpi
from bookbus.consumers.paper.market import Market, VenueQuote
from bookbus.consumers.paper.records import EventFiles, Gap
from bookbus.consumers.paper.settings import PASSIVE_MODELS, EntryChooser, RunSettings
from bookbus.consumers.paper.trader import SymbolTrader
from bookbus.schemas.instruments import Exchange, Instrument, InstrumentRegistry, exchange_of, guess_instrument
from bookbus.schemas.snapshot import OrderBookSnapshot


class Calibration(NamedTuple):
    """A table with its version: that of its format, and the beginning of its file's hash."""

    table: CalibrationTable
    version: str


def calibration_of(settings: RunSettings) -> Calibration | None:
    """The one that the settings name; None if they name none.

    Raises CalibrationError for one that cannot be read, or that would decide about orders it knows nothing of.
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
    """In what the table's orders differ from those of the run; empty if it may be believed for them."""
    found = []
    if settings.fill_model not in PASSIVE_MODELS:
        found.append(f"its orders wait, those of {settings.fill_model} take")
    elif settings.hold != table.method.horizon_seconds:
        found.append(f"its orders wait {table.method.horizon_seconds:g} s, these {settings.hold:g} s")
    latency_ms = QueueFill().latency_us / 1e3
    if settings.fill_model == "queue" and table.method.latency_ms != latency_ms:
        found.append(f"its orders take {table.method.latency_ms:g} ms to arrive, these {latency_ms:g} ms")
    known = {(tape.exchange, symbol) for tape in table.tapes for symbol in tape.symbols}
    foreign = [f"{symbol} on {name}" for name in exchanges for symbol in symbols if (name, symbol) not in known]
    if foreign:
        found.append(f"no tape of it holds {', '.join(foreign)}")
    return found


def _require_same_horizon(settings: RunSettings, table: CalibrationTable) -> None:
    """Where the table only comments, a mismatch is told; where it decides, its answer must be to this question."""
    decides = settings.fill_model == "calibrated" or settings.fillmodel_mode == "strict"
    horizon = table.method.horizon_seconds
    if decides and settings.fill_model in PASSIVE_MODELS and settings.hold != horizon:
        raise CalibrationError(
            f"{settings.calibration_path} tells of orders that wait {horizon:g} s, and these would wait "
            f"{settings.hold:g} s: use --max-hold {horizon:g}, or a table made with --horizon {settings.hold:g}"
        )


logger = logging.getLogger(__name__)


class TradingSession:
    """Call `step` whenever something may have happened, and in any case at `next_due`; `finish` writes the figures.

    Times are seconds since 1970 of whatever clock the caller goes by, never falling.
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
        """`listed` is what exchanges said of their instruments, as far as it is known.

        Raises ValueError for settings that do not fit together, OSError if the files cannot be written.
        """
        quote = _one_quote(market.symbols)
        table, version = calibration or (None, None)
        portfolio = Portfolio(dict.fromkeys(market.exchanges, settings.cash_in(quote)))
        choosers = {
            symbol: EntryChooser(settings.entry, symbol, table.zones if table is not None else ())
            for symbol in market.symbols
        }
        self.quote = quote
        self.context = PaperBroker(
            settings,
            session_id,
            make_execution(settings, table, time_source),
            table,
            version,
            portfolio,
            RiskGuard(settings.limits_in(quote)),
            EventFiles(directory, session_id),
            tuple(mismatches(settings, table, market.exchanges, market.symbols)) if table is not None else (),
        )
        self._market = market
        self._desks = {
            symbol: SymbolTrader(symbol, self.context, choosers[symbol], _instruments(market.exchanges, symbol, listed))
            for symbol in market.symbols
        }
        self.context.record.gaps = {symbol: Gap() for symbol in market.symbols}
        self._ungranted = {
            (exchange, symbol)
            for exchange in market.exchanges
            for symbol in market.symbols
            if settings.inventory_notional
        }
        self.began = began
        self._decisions = 0
        self._quotes: dict[str, list[VenueQuote]] = {}
        self.context.guard.observe(began, 0.0)
        self._log = logging.FileHandler(directory / f"run_{session_id}.log", "w")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        logging.getLogger().addHandler(self._log)
        if self.context.mismatches:
            logger.warning("the calibration does not speak for this run: %s", "; ".join(self.context.mismatches))

    @property
    def ends(self) -> float:
        """When the run is over."""
        duration = self.context.settings.duration
        return float("inf") if duration is None else self.began + duration

    @property
    def next_due(self) -> float:
        """When something has to be done even if nothing happens."""
        waiting = min(desk.next_due for desk in self._desks.values())
        return min(self._next_decision, self.context.markouts.next_due, waiting, self.ends)

    @property
    def _next_decision(self) -> float:
        return self.began + self._decisions * self.context.settings.trade_interval

    def follows(self, event: TapeEvent) -> bool:
        """Whether a step is due for this event: a new book, or a trade that a waiting order may be part of."""
        return isinstance(event, OrderBookSnapshot) or self._desks[event.symbol].waits

    def step(self, now: float, symbols: Sequence[str] | None = None) -> None:
        """What there is to do now; for all symbols, unless only some have news."""
        context = self.context
        context.record.steps += 1
        for symbol in self._market.symbols if symbols is None else symbols:
            self._step(now, symbol)
        if symbols is not None:
            return
        context.markouts.look(now, self._mid, context.files.write_markout)
        if self._next_decision <= now < self.ends:
            self._decide(now)

    def finish(self, now: float, end_reason: str, error: str = "") -> Kpi:
        """Close what is open, write the figures, close the files."""
        context = self.context
        for symbol, desk in self._desks.items():
            if not error:
                desk.end(now, self._market.quotes(symbol))
        kpi = make_kpi(context, self._market, self.quote, self.began, now, end_reason, error)
        context.files.write_kpi(kpi)
        context.files.close()
        logging.getLogger().removeHandler(self._log)
        self._log.close()
        return kpi

    def progress(self, now: float) -> str:
        """One line for people."""
        record = self.context.record
        skipped = record.skipped.total() - record.skipped["open_trade"]
        states = " ".join(f"{symbol} {_state(quotes)}" for symbol, quotes in self._quotes.items())
        return (
            f"{now - self.began:6.0f} s  {record.decisions} decisions, {record.closed} trades, "
            f"{self.context.files.fills} fill events, {skipped} skipped, "
            f"pnl {self.context.pnl:+.4f} {self.quote}  {states}"
        )

    def _step(self, now: float, symbol: str) -> None:
        events: list[TapeEvent] = self._market.events(symbol, now)
        # Read once: whatever is decided in this step goes by one and the same book.
        quotes = self._quotes[symbol] = self._market.quotes(symbol)
        tradable = [quote for quote in quotes if not quote.reject_reason]
        self.context.record.gaps[symbol].observe(now, bool(tradable))
        if tradable:
            mid_prices = [mid for quote in tradable if quote.book is not None and (mid := quote.book.mid()) is not None]
            self.context.marks[symbol] = math.fsum(mid_prices) / len(mid_prices)
        if self._ungranted:
            self._grant(symbol, tradable)
        self._desks[symbol].step(now, quotes, events)

    def _decide(self, now: float) -> None:
        """The decision that is due; those before it that nobody was there to make are skipped."""
        context = self.context
        context.guard.observe(now, context.pnl)
        due = int((now - self.began) / context.settings.trade_interval + 1e-9)
        late = due - self._decisions
        self._decisions = due + 1
        for symbol, desk in self._desks.items():
            if late > 0:
                context.record.skipped["runner_late"] += late
                context.record.decisions += late
            # Counted from when it was due, a trade of one interval is over when the next decision is made.
            desk.decide(now, self.began + due * context.settings.trade_interval, self._quotes[symbol])

    def _grant(self, symbol: str, tradable: Sequence[VenueQuote]) -> None:
        """Give each exchange what it holds to begin with, once there is a price to tell how much that is."""
        for quote in tradable:
            key, mid = (quote.exchange, symbol), quote.book.mid() if quote.book is not None else None
            if key in self._ungranted and mid is not None:
                self._ungranted.discard(key)
                self.context.portfolio.grant(*key, self.context.settings.inventory_notional / mid)

    def _mid(self, symbol: str, exchange: str) -> float | None:
        for quote in self._quotes[symbol]:
            if quote.exchange == exchange and not quote.reject_reason and quote.book is not None:
                return quote.book.mid()
        return None


def session_name(began: float, settings: RunSettings) -> str:
    """The UTC time it began, and its tag."""
    parts = [datetime.fromtimestamp(began, UTC).strftime("%Y%m%d_%H%M%S")]
    if settings.session_tag:
        parts.append(settings.session_tag)
    return "_".join(parts)


def recorded_session_name(began: float, settings: RunSettings, calibration: Calibration | None) -> str:
    """Also tells by eight digits with which settings it ran: the same ones have the same name.

    A table counts by its content, wherever it lies.
    """
    told = replace(settings, calibration_path=calibration.version if calibration is not None else None)
    return f"{session_name(began, settings)}_{hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:8]}"


def _one_quote(symbols: Sequence[str]) -> str:
    quotes = sorted({symbol.rpartition("-")[2] for symbol in symbols})
    if len(quotes) != 1:
        raise ValueError(f"one run has one quote currency, these symbols have {' and '.join(quotes)}: run them apart")
    return quotes[0]


def _instruments(
    exchanges: Sequence[str], symbol: str, listed: Mapping[str, InstrumentRegistry]
) -> dict[str, Instrument]:
    """The symbol on each exchange; nothing but its name where the exchange quotes it in another currency."""
    return {
        exchange: listed[exchange].resolve(symbol)
        if exchange in listed
        else guess_instrument(_exchange(exchange), symbol)
        for exchange in exchanges
    }


def _exchange(exchange: str) -> Exchange:
    return Exchange(exchange, "USDT") if exchange == "mock" else exchange_of(exchange)


def _state(quotes: Sequence[VenueQuote]) -> str:
    return "/".join(quote.reject_reason or f"live {(quote.age or 0) * 1e3:.0f} ms" for quote in quotes)
