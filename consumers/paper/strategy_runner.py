"""Runs strategies: live from providers, or through recordings; each has an engine and an account of its own."""

import hashlib
import heapq
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import msgspec

from bookbus.consumers.bus.trades import TradeSource, TradeTail
from bookbus.consumers.captures import TapeFrame, read_capture
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.venue_book import taker_fees
from bookbus.consumers.paper.engine import Engine, MarketRules, OrderRecord
from bookbus.consumers.paper.latency import parse_latency
from bookbus.consumers.paper.performance import CurveFigures, SymbolFigures
from bookbus.consumers.paper.records import utc
from bookbus.consumers.paper.runner import LONGEST_HOLE, PROGRESS_INTERVAL, Clock, ShowProgress, Stop, steady_clock
from bookbus.consumers.paper.schedule import microseconds
from bookbus.consumers.paper.shared_account import SharedAccount
from bookbus.consumers.paper.strategy_loader import SHARED, StrategySpec, load_strategy, make_strategy
from bookbus.consumers.reading import MAX_AGE, Reading, judge
from bookbus.consumers.strategy import Strategy
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.instruments import Exchange, Instrument, InstrumentRegistry, exchange_of
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)

_FEE_IN_BASE = frozenset({"binance", "bybit"})
"""Exchanges that charge the fee in the asset that was received."""

_MOCK_FEE_BPS = 10.0
_KRW_A_DOLLAR = 1_000
_POLL = 0.02
"""Seconds between two looks for trades and for the end of the run."""

Event = OrderBookSnapshot | Trade


class StrategySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run of strategies. Fees are in bps by exchange; `latency` is the text of `--latency`."""

    source: str
    symbols: tuple[str, ...]
    duration: float | None = None
    latency: str = ""
    fees: dict[str, float] = {}
    maker_fees: dict[str, float] = {}
    cash: float | None = None
    """First amount of each quote asset on each exchange; None is 10,000, in KRW 10,000,000."""
    inventory_notional: float = 0.0
    """Value of each base asset held at first, in the quote asset."""
    max_age: float = MAX_AGE
    depth: int = 20
    sample_seconds: float = 10.0
    seed: int = 42
    session_tag: str = ""


def check_settings(settings: StrategySettings) -> None:
    """Raises ValueError for a number outside its range."""
    positive = {
        "--duration-seconds": settings.duration,
        "--cash": settings.cash,
        "--max-age": settings.max_age,
        "--sample-interval": settings.sample_seconds,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{option} {value}: give a number above 0")
    parse_latency(settings.latency, settings.seed, lambda _: 0)


class StrategyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one strategy; profit is after fees, positions at the last mid price of a live book."""

    session_id: str
    strategy: str
    parameters: dict[str, str]
    start_time: str
    end_time: str
    actual_duration_seconds: float
    end_reason: str
    error: str
    """What the strategy raised; empty if nothing."""
    traceback: str
    orders: dict[str, int]
    """Number of each event of the orders."""
    order_reasons: dict[str, int]
    """Reasons of orders that were rejected, expired or not cancelled."""
    trades_seen: int
    currencies: list[CurveFigures]
    symbols: list[SymbolFigures]
    balances: dict[str, dict[str, float]]
    changes: dict[str, float]
    """By asset, what all exchanges hold more than at first."""
    dust: dict[str, float]
    """By symbol, holdings below one lot step, which no order can sell."""
    orders_path: str
    orders_sha256: str
    settings: StrategySettings


class MarketSource(Protocol):
    """Books and trades of every market of a run."""

    @property
    def markets(self) -> Sequence[Instrument]:
        """All markets."""

    def reading(self, exchange: str, symbol: str, now_us: int) -> Reading:
        """The newest book and its status."""


class RecordedSource:
    """The books of recordings, one for each exchange, merged by the time of receipt."""

    def __init__(self, paths: Sequence[Path], symbols: Sequence[str], depth: int, max_age: float) -> None:
        """Raises CaptureError, OSError, SymbolError, ValueError."""
        tapes = [read_capture(path, symbols, depth) for path in paths]
        firsts = [next(tape) for tape in tapes]
        exchanges = [frame.exchange for frame in firsts]
        if len(set(exchanges)) < len(exchanges):
            raise CaptureError(f"give one recording of each exchange, not {' and '.join(exchanges)}")
        registries = [InstrumentRegistry(exchange_of(exchange), offline=True) for exchange in exchanges]
        resolved = {registry.resolve(name): None for registry in registries for name in symbols}
        self.markets: Sequence[Instrument] = tuple(resolved)
        self.frames: Iterator[TapeFrame] = heapq.merge(
            *(chain([first], tape) for first, tape in zip(firsts, tapes, strict=True)), key=lambda frame: frame.time
        )
        self.now_us = 0
        self._max_age = max_age
        self._books = {(one.exchange, one.symbol): LocalBook() for one in self.markets}

    @property
    def without_book(self) -> list[str]:
        """Markets without a live book now."""
        readings = {one: self.reading(one.exchange, one.symbol, self.now_us) for one in self.markets}
        return [f"{one.exchange}:{one.symbol}" for one, reading in readings.items() if reading.status != "live"]

    def apply(self, frame: TapeFrame) -> list[Event]:
        """Move the time to the frame; its books and trades of the run's markets."""
        # The recorder's clock may have been set back.
        self.now_us = max(self.now_us, round(frame.time * 1e6))
        now = self.now_us / 1e6
        for (exchange, _), book in self._books.items():
            # Every frame proves that the connection was up.
            if exchange == frame.exchange:
                book.confirm(now)
        events: list[Event] = [event for event in frame.events if (event.exchange, event.symbol) in self._books]
        for event in events:
            if isinstance(event, OrderBookSnapshot):
                self._books[event.exchange, event.symbol].take(event, now)
        return events

    def reading(self, exchange: str, symbol: str, now_us: int) -> Reading:
        observation = self._books[exchange, symbol].observe(now_us / 1e6, None, "")
        status, reason = judge(observation, self._max_age)
        return Reading(observation.snapshot, status, observation.age, f"{symbol}: {reason}" if reason else "")


class LiveSource:
    """The books of started providers, one for each exchange, with the trades of those that have them."""

    def __init__(
        self,
        providers: Mapping[str, MarketDataProvider],
        listed: Mapping[str, InstrumentRegistry] = MappingProxyType({}),
        clock: Clock | None = None,
    ) -> None:
        """`listed` has the instruments of exchanges whose rules are known."""
        self.clock = clock or steady_clock()
        self._providers = dict(providers)
        self._queue: queue.SimpleQueue[tuple[int, OrderBookSnapshot]] = queue.SimpleQueue()
        self._tails: list[TradeTail] = []
        self._polled = 0.0
        found = []
        for exchange, provider in self._providers.items():
            for symbol in provider.symbols:
                found.append(_instrument(exchange, symbol, listed))
                if isinstance(provider, TradeSource):
                    self._tails.append(provider.trades(symbol))
            provider.on_snapshot(lambda book: self._queue.put((self.now_us(), book)))
        self.markets: Sequence[Instrument] = tuple(found)

    def reading(self, exchange: str, symbol: str, now_us: int) -> Reading:
        return self._providers[exchange].read(symbol)

    def wait(self, seconds: float) -> list[tuple[int, Event]]:
        """The events since the last call with the time they came, in order; waits for the first one."""
        events: list[tuple[int, Event]] = []
        try:
            events.append(self._queue.get(timeout=max(min(seconds, _POLL), 0.0)))
            while True:
                events.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        now = self.clock()
        if now - self._polled >= _POLL:
            self._polled = now
            at_us = self.now_us()
            events += [(at_us, trade) for tail in self._tails for trade in tail.take()]
        return events

    def close(self) -> None:
        for tail in self._tails:
            if callable(close := getattr(tail, "close", None)):
                close()

    def now_us(self) -> int:
        """Microseconds since 1970 on the run's clock."""
        return round(self.clock() * 1e6)


class StrategyRun:
    """One strategy of a run with its files."""

    def __init__(
        self,
        spec: StrategySpec,
        settings: StrategySettings,
        source: MarketSource,
        directory: Path,
        began_us: int,
        *,
        replaces: bool,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        """`replaces`: files of an earlier run of the same name are replaced. Raises ValueError, OSError."""
        self.spec = spec
        self.name = _name_of(spec)
        self._settings = settings
        self._source = source
        self._began_us = began_us
        self._feed_us: dict[str, int] = {}
        self.session_id = _session_name(spec, self.name, settings, began_us)
        directory.mkdir(parents=True, exist_ok=True)
        self._orders, self.session_id = _new_file(directory, self.session_id, replaces)
        self._directory = directory
        self._hash = hashlib.sha256()
        self._strategy = _strategy_of(spec)
        self._figures: StrategyFigures | None = None
        self.engine = Engine(
            self.name,
            self._strategy,
            _rules(source.markets, settings),
            source.reading,
            parse_latency(settings.latency, settings.seed, lambda exchange: self._feed_us.get(exchange, 0)),
            self._write,
            sample_seconds=settings.sample_seconds,
            clock_us=clock_us,
        )
        self._deposit(began_us)

    def start(self) -> None:
        books = [self._reading(market).snapshot for market in self._source.markets]
        self.engine.start(self._began_us, [book for book in books if book is not None])
        self._say_crash()

    def receive(self, now_us: int, event: Event, notify: bool = True) -> None:
        if event.exchange_us is not None:
            self._feed_us[event.exchange] = event.received_us - event.exchange_us
        before = self.engine.stopped
        self.engine.receive(now_us, event, notify)
        if self.engine.stopped and not before:
            self._say_crash()

    def advance(self, now_us: int) -> None:
        before = self.engine.stopped
        self.engine.advance(now_us)
        if self.engine.stopped and not before:
            self._say_crash()

    def finish(self, now_us: int, reason: str) -> StrategyFigures:
        """End it and write its files."""
        if self._figures is not None:
            return self._figures
        engine = self.engine
        engine.stop(now_us)
        errors, tracebacks = [engine.error], [engine.traceback]
        if isinstance(self._strategy, SharedAccount):
            errors = [f"{name}: {error}" for name, error in self._strategy.errors.items()]
            tracebacks = list(self._strategy.tracebacks.values())
        if engine.events["accepted"] and not engine.trades:
            logger.warning("%s: no trades, so waiting orders are filled only by books that reach them", self.session_id)
        ledgers = {rules.name: engine.ledger(rules.name) for rules in engine.markets}
        pnl = engine.pnl()
        self._orders.close()
        figures = self._figures = StrategyFigures(
            session_id=self.session_id,
            strategy=self.spec.strategy,
            parameters=self.spec.parameters,
            start_time=utc(self._began_us / 1e6),
            end_time=utc(engine.now_us / 1e6),
            actual_duration_seconds=(engine.now_us - self._began_us) / 1e6,
            end_reason="crashed" if engine.error else reason,
            error="; ".join(errors),
            traceback="\n".join(tracebacks),
            orders=dict(sorted(engine.events.items())),
            order_reasons=dict(sorted(engine.rejections.items())),
            trades_seen=engine.trades,
            currencies=[
                engine.curve.figures(
                    currency,
                    [ledgers[rules.name] for rules in engine.markets if rules.instrument.quote == currency],
                    amount,
                )
                for currency, amount in pnl.items()
            ],
            symbols=[
                engine.curve.symbol_figures(
                    rules.name, rules.instrument.quote, ledgers[rules.name], engine.mark(rules.name)
                )
                for rules in engine.markets
            ],
            balances=engine.balances(),
            changes={asset: float(amount) for asset, amount in engine.changes().items()},
            dust={rules.name: dust for rules in engine.markets if (dust := self._dust(rules))},
            orders_path=self._orders.name,
            orders_sha256=self._hash.hexdigest(),
            settings=self._settings,
        )
        _write_json(self._directory / f"strategy_{self.session_id}.json", figures)
        self._write_curve()
        return figures

    def progress(self) -> str:
        engine = self.engine
        pnl = " ".join(f"{float(amount):+.4f} {currency}" for currency, amount in engine.pnl().items())
        state = "crashed" if engine.error else f"{len(engine.open_orders())} open orders"
        return f"{self.session_id}: {engine.events['filled']} orders filled, {state}, pnl {pnl}"

    def _reading(self, market: Instrument) -> Reading:
        return self._source.reading(market.exchange, market.symbol, self._began_us)

    def _deposit(self, now_us: int) -> None:
        """Give each exchange its first cash, and its first inventory at the mid price."""
        settings, engine = self._settings, self.engine
        quotes = {(market.exchange, market.quote) for market in self._source.markets}
        for exchange, quote in sorted(quotes):
            usual = 10_000.0 * (_KRW_A_DOLLAR if quote == "KRW" else 1)
            engine.deposit(exchange, quote, usual if settings.cash is None else settings.cash)
        given: set[tuple[str, str]] = set()
        for market in self._source.markets:
            book = self._source.reading(market.exchange, market.symbol, now_us).snapshot
            mid = book.mid() if book is not None else None
            if settings.inventory_notional and mid and (market.exchange, market.base) not in given:
                given.add((market.exchange, market.base))
                engine.deposit(market.exchange, market.base, settings.inventory_notional / mid)

    def _dust(self, rules: MarketRules) -> float:
        held = self.engine.balance(rules.instrument.exchange, rules.instrument.base)
        step = rules.instrument.step
        return float(held) if step is not None and 0 < held < step else 0.0

    def _say_crash(self) -> None:
        if self.engine.error:
            logger.error("strategy %s ended: %s\n%s", self.session_id, self.engine.error, self.engine.traceback)

    def _write(self, record: OrderRecord) -> None:
        line = msgspec.json.encode(record) + b"\n"
        self._hash.update(line)
        self._orders.write(line)
        self._orders.flush()

    def _write_curve(self) -> None:
        curve = self.engine.curve
        with (self._directory / f"equity_{self.session_id}.jsonl").open("wb") as file:
            for number, moment in enumerate(curve.times):
                line = {
                    "time": utc(moment),
                    "pnl": {currency: values[number] for currency, values in curve.pnl.items()},
                    "exposure": {symbol: values[number] for symbol, values in curve.exposure.items()},
                }
                file.write(msgspec.json.encode(line) + b"\n")


def run_strategies_recorded(
    specs: Sequence[StrategySpec],
    settings: StrategySettings,
    paths: Sequence[Path],
    directory: Path,
    stop: Stop,
    show: ShowProgress,
) -> list[StrategyFigures]:
    """Run each strategy through the recordings, which are read once. The run begins when all markets have a book.

    Raises CaptureError, SymbolError, ValueError or OSError.
    """
    source = RecordedSource(paths, settings.symbols, settings.depth, settings.max_age)
    runs: list[StrategyRun] = []
    ends_us = 0
    shown = time.monotonic()
    reason = "end_of_recording"
    try:
        for frame in source.frames:
            at_us = max(round(frame.time * 1e6), source.now_us)
            if runs:
                if at_us - source.now_us > LONGEST_HOLE * 1e6:
                    raise CaptureError(f"the recording's time jumps by {(at_us - source.now_us) / 1e6:.0f} s")
                if ends_us and at_us >= ends_us:
                    source.now_us, reason = ends_us, "duration"
                    break
                for run in runs:
                    run.advance(at_us)
            events = source.apply(frame)
            if not runs:
                if not source.without_book:
                    runs = [StrategyRun(spec, settings, source, directory, at_us, replaces=True) for spec in specs]
                    stop.polled = True
                    ends_us = at_us + microseconds(settings.duration) if settings.duration is not None else 0
                    for run in runs:
                        run.start()
                continue
            for event in events:
                for run in runs:
                    run.receive(at_us, event)
            if stop.reason or all(run.engine.stopped for run in runs):
                reason = stop.reason or "crashed"
                break
            if time.monotonic() - shown >= PROGRESS_INTERVAL:
                shown = time.monotonic()
                show(runs[0].progress())
    except BaseException:
        _finish_after_error(runs, source.now_us)
        raise
    if not runs:
        raise CaptureError(f"the recording never has a live book of {', '.join(source.without_book)}")
    return [run.finish(source.now_us, reason) for run in runs]


def run_strategies_live(
    specs: Sequence[StrategySpec],
    settings: StrategySettings,
    source: LiveSource,
    directory: Path,
    stop: Stop,
    show: ShowProgress,
) -> list[StrategyFigures]:
    """Run each strategy until the duration is over, or `stop` or crashes end the run. Raises ValueError, OSError."""
    began_us = source.now_us()
    runs = [
        StrategyRun(spec, settings, source, directory, began_us, replaces=False, clock_us=source.now_us)
        for spec in specs
    ]
    ends_us = began_us + microseconds(settings.duration) if settings.duration is not None else None
    stop.polled = True
    for run in runs:
        run.start()
    shown_us = now_us = began_us
    try:
        while True:
            due = [due for run in runs if (due := run.engine.next_due_us) is not None]
            wait_us = min(due, default=now_us + 1_000_000) - source.now_us()
            events = source.wait(wait_us / 1e6)
            # A strategy that is slower than the books is told the newest one of each market.
            newest = {(event.exchange, event.symbol): event for _, event in events if not isinstance(event, Trade)}
            for at_us, event in events:
                # Seen in the order in which it came; time does not go back.
                now_us = max(now_us, at_us)
                notify = isinstance(event, Trade) or newest[event.exchange, event.symbol] is event
                for run in runs:
                    run.receive(now_us, event, notify)
            now_us = max(now_us, source.now_us())
            reached_us = now_us if ends_us is None else min(now_us, ends_us)
            for run in runs:
                run.advance(reached_us)
            if now_us - shown_us >= PROGRESS_INTERVAL * 1e6:
                shown_us = now_us
                for run in runs:
                    show(run.progress())
            if stop.reason or all(run.engine.stopped for run in runs):
                return [run.finish(now_us, stop.reason or "crashed") for run in runs]
            if ends_us is not None and now_us >= ends_us:
                return [run.finish(ends_us, "duration") for run in runs]
    except BaseException:
        _finish_after_error(runs, now_us)
        raise


def _finish_after_error(runs: Sequence[StrategyRun], now_us: int) -> None:
    """Write what there is; the error itself may be why that fails, too."""
    for run in runs:
        with suppress(Exception):
            run.finish(now_us, "error")


def summary(figures: StrategyFigures) -> str:
    """What a run ends with, for people."""
    pnl = ", ".join(
        f"pnl {one.pnl:+.4f} {one.currency} after {one.fees:.4f} of fees, largest drawdown {one.max_drawdown:.4f}"
        for one in figures.currencies
    )
    orders = ", ".join(f"{count} {event}" for event, count in figures.orders.items()) or "none"
    lines = [
        f"{figures.session_id}: {figures.end_reason} after {figures.actual_duration_seconds:.0f} s, {pnl}; "
        f"orders: {orders}",
        f"  {figures.orders_path}  sha256 {figures.orders_sha256}",
    ]
    if figures.dust:
        lines.append(
            "  below one lot step, which no order can sell: "
            + ", ".join(f"{amount:g} of {symbol}" for symbol, amount in figures.dust.items())
        )
    if figures.error:
        lines.append(f"  {figures.error}")
    return "\n".join(lines)


def _instrument(exchange: str, symbol: str, listed: Mapping[str, InstrumentRegistry]) -> Instrument:
    if exchange in listed:
        return listed[exchange].resolve(symbol)
    base, _, quote = symbol.partition("-")
    home = Exchange(exchange, quote) if exchange == "mock" else exchange_of(exchange)
    return Instrument(exchange, base, quote, home.native(base, quote))


def _rules(markets: Sequence[Instrument], settings: StrategySettings) -> list[MarketRules]:
    exchanges = list(dict.fromkeys(market.exchange for market in markets))
    usual = {"mock": _MOCK_FEE_BPS} if "mock" in exchanges else {}
    taker = taker_fees(exchanges, {**usual, **settings.fees})
    maker = taker_fees(exchanges, {**taker, **settings.maker_fees})
    names = [market.symbol for market in markets]
    return [
        MarketRules(
            market.symbol if names.count(market.symbol) == 1 else f"{market.exchange}:{market.symbol}",
            market,
            maker[market.exchange],
            taker[market.exchange],
            market.exchange in _FEE_IN_BASE,
        )
        for market in markets
    ]


def _session_name(spec: StrategySpec, name: str, settings: StrategySettings, began_us: int) -> str:
    """Start, tag, strategy, and eight digits of the hash of all settings."""
    began = datetime.fromtimestamp(began_us / 1e6, UTC).strftime("%Y%m%d_%H%M%S")
    # Without the directory: the same strategy and recording give the same name wherever they lie.
    plain = [msgspec.structs.replace(one, strategy=Path(one.strategy).name) for one in spec.members or (spec,)]
    digits = hashlib.sha256(msgspec.json.encode((plain, settings))).hexdigest()[:8]
    return "_".join(filter(None, [began, settings.session_tag, name, digits]))


def _name_of(spec: StrategySpec) -> str:
    return SHARED if spec.members else spec.strategy.rpartition(":")[2]


def _strategy_of(spec: StrategySpec) -> Strategy:
    """Raises ValueError."""
    if not spec.members:
        return make_strategy(load_strategy(spec.strategy), spec.parameters)
    members: dict[str, Strategy] = {}
    for member in spec.members:
        name = number = _name_of(member)
        while number in members:
            number = f"{name}.{len(members) + 1}"
        members[number] = _strategy_of(member)
    return SharedAccount(members)


def _new_file(directory: Path, name: str, replaces: bool) -> tuple[IO[bytes], str]:
    """The order file of a session, and the name, with a number appended if another run has it."""
    if replaces:
        return (directory / f"orders_{name}.jsonl").open("wb"), name
    number = 1
    while True:
        found = name if number == 1 else f"{name}-{number}"
        try:
            return (directory / f"orders_{found}.jsonl").open("xb"), found
        except FileExistsError:
            number += 1


def _write_json(path: Path, value: Any) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    new.replace(path)
