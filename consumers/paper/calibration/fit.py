"""Fits a calibration table: places hypothetical passive orders along tapes and sees whether the trades fill them."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bookbus.consumers.paper.calibration.statistics import Outcome, ZoneOutcomes, interval, score, share
from bookbus.consumers.paper.calibration.table import (
    CalibrationTable,
    Method,
    Score,
    Zone,
    ZoneSpec,
)
from bookbus.consumers.paper.calibration.tape import Tape, TapeSurvey, share_ahead, survey
from bookbus.consumers.paper.fills.model import BookOrder, FillReason, TapeEvent
from bookbus.consumers.paper.fills.queue import QueuedOrder, QueueFill
from bookbus.consumers.paper.order_rules import entry_price, take_profit_price
from bookbus.schemas.snapshot import OrderBookSnapshot, Side

DEFAULT_ZONES = "0-1/1-3,1-3/2-5,3-5/4-8,5-7/7-12,7-12/10-20"
_LATEST_START = 0.1
"""Share of the horizon within which an event must follow the start of a slot; else the tape has a gap there."""

_SLOT = 2 + _LATEST_START
"""Length of a slot in horizons: entry and exit end before the zone's next trial begins."""

_SLOTS_PER_TAPE = 3_000_000
"""More than any tape has, so that slots of two tapes differ."""

_MINIMUM_CANCELLATIONS = 100


def calibrate(tapes: Sequence[Tape], zones: Sequence[ZoneSpec], method: Method, created_at: str) -> CalibrationTable:
    """The table fitted to the first part of each tape and scored on the rest.

    Raises CalibrationError for a tape without books or trades.
    """
    surveys = [survey(tape) for tape in tapes]
    splits = [_split_us(seen, method.fit_share) for seen in surveys]
    cancelled = [
        one for seen, end_us in zip(surveys, splits, strict=True) for one in seen.cancellations if one.at_us < end_us
    ]
    enough = len(cancelled) >= _MINIMUM_CANCELLATIONS
    ahead = share_ahead(cancelled, round(method.horizon_seconds * 1e6)) if enough else None
    fitted, held_out = _play(tapes, surveys, splits, zones, method, ahead)
    fits = tuple(
        _zone(spec, fitted.zones[spec.zone_id], held_out.zones[spec.zone_id], method.minimum_samples) for spec in zones
    )
    buy_rate, sell_rate = _base_rate(fitted, "buy"), _base_rate(fitted, "sell")
    return CalibrationTable(
        created_at=created_at,
        source="tape",
        total_events=fitted.started + held_out.started,
        unmatched_events=fitted.void + held_out.void,
        zones=fits,
        default_buy_fill_ratio=buy_rate,
        default_sell_fill_ratio=sell_rate,
        cancellation_share=ahead,
        cancellation_samples=len(cancelled),
        hold_out_buy=score(fits, held_out.zones, "buy", buy_rate),
        hold_out_sell=score(fits, held_out.zones, "sell", sell_rate),
        tapes=tuple(seen.info for seen in surveys),
        method=method,
    )


def validate(table: CalibrationTable, tapes: Sequence[Tape]) -> tuple[Score, Score]:
    """Scores of a table's entries and exits on other tapes; orders are placed as when it was fitted.

    Raises CalibrationError for a tape that the table comes from.
    """
    surveys = [survey(tape) for tape in tapes]
    table.require_other_tape(seen.info for seen in surveys)
    # Nothing is fitted: the whole tape is held out.
    starts = [seen.info.first_us for seen in surveys]
    _, held_out = _play(tapes, surveys, starts, table.zones, table.method, table.cancellation_share)
    return (
        score(table.zones, held_out.zones, "buy", table.default_buy_fill_ratio),
        score(table.zones, held_out.zones, "sell", table.default_sell_fill_ratio),
    )


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """Waiting time, value and queue model of the orders."""

    horizon_us: int
    notional: float
    queue: QueueFill


class Trial:
    """An entry and, once it is filled, its exit. `entered` and `exited` are None until decided; `void` means that the
    book was not live during the trial.
    """

    def __init__(self, entry: QueuedOrder, exit_price: float, settings: TrialSettings, book: OrderBookSnapshot) -> None:
        self.entered: bool | None = None
        self.exited: bool | None = None
        self.void = False
        self._waiting = entry
        self._exit_price = exit_price
        self._settings = settings
        self._book = book

    @property
    def done(self) -> bool:
        """Whether no further event changes the result."""
        return self.void or self.entered is False or self.exited is not None

    def receive(self, event: TapeEvent) -> None:
        if self.done:
            return
        if isinstance(event, OrderBookSnapshot):
            if event.state != "live":
                self.void = True
                return
            self._book = event
        self.expire(event.received_us)
        if self.done:
            return
        self._waiting.receive(event)
        if self._waiting.done:
            reason = self._waiting.total().reason
            if reason is FillReason.FILLED:
                self._set_result(True, event.received_us)
            else:
                # An entry that would take is not filled as passive; an exit that would take is a fill at its price.
                self._set_result(self.entered is True and reason is FillReason.WOULD_TAKE)

    def expire(self, now_us: int) -> None:
        """End an order that has waited longer than the horizon."""
        if not self.done and now_us > self._waiting.order.placed_us + self._settings.horizon_us:
            self._set_result(False)

    def _set_result(self, filled: bool, at_us: int = 0) -> None:
        if self.entered:
            self.exited = filled
            return
        self.entered = filled
        if filled:
            self._leave(at_us)

    def _leave(self, at_us: int) -> None:
        order = self._waiting.order
        leaving = BookOrder(
            exchange=order.exchange,
            symbol=order.symbol,
            side="sell",
            quantity=order.quantity,
            placed_us=at_us,
            price=self._exit_price,
        )
        self._waiting = self._settings.queue.place(leaving, self._book)
        if self._waiting.done:
            self._set_result(self._waiting.total().reason is FillReason.WOULD_TAKE)


def start_trial(
    book: OrderBookSnapshot, now_us: int, entry_bps: float, tp_bps: float, tick: float | None, settings: TrialSettings
) -> Trial | None:
    """A trial on the newest book; None where its order cannot wait."""
    price = entry_price("buy", book, entry_bps, tick)
    exit_price = None if price is None else take_profit_price("buy", price, tp_bps, tick)
    if price is None or exit_price is None:
        return None
    order = BookOrder(
        exchange=book.exchange,
        symbol=book.symbol,
        side="buy",
        quantity=settings.notional / price,
        placed_us=now_us,
        price=price,
    )
    entry = settings.queue.place(order, book)
    return None if entry.done else Trial(entry, exit_price, settings, book)


@dataclass(slots=True)
class Part:
    """Results of the trials in one part of the tapes, by zone; `void` counts undecided ones."""

    zones: defaultdict[str, ZoneOutcomes] = field(default_factory=lambda: defaultdict(ZoneOutcomes))
    started: int = 0
    void: int = 0


@dataclass(frozen=True, slots=True)
class _Placed:
    zone_id: str
    slot: int
    trial: Trial
    part: Part


@dataclass(slots=True)
class TrialRun:
    """Starts a trial of every zone in every slot of every symbol; all zones share the slots, so that they compare.

    Slots that end by `split_us` are for `fitted`, those that begin after it for `held_out`; one between, or one that
    the tape ends within, is for neither.
    """

    zones: Sequence[ZoneSpec]
    settings: TrialSettings
    seed: int
    survey: TapeSurvey
    split_us: int
    fitted: Part
    held_out: Part
    first_slot: int = 0
    _placed: defaultdict[str, list[_Placed]] = field(default_factory=lambda: defaultdict(list))
    _books: dict[str, OrderBookSnapshot] = field(default_factory=dict)
    _slot: int = -1

    def play(self, tape: Tape) -> None:
        now_us = self.survey.info.first_us
        for event in tape.events():
            now_us = max(now_us, event.received_us)
            placed = self._placed[event.symbol]
            for one in placed:
                one.trial.receive(event)
            if any(one.trial.done for one in placed):
                self._collect(event.symbol)
            if isinstance(event, OrderBookSnapshot):
                self._books[event.symbol] = event
            self._begin_slot(now_us)
        self._expire(now_us + 1)

    def _begin_slot(self, now_us: int) -> None:
        """Start trials if a slot begins, on the newest book of every symbol."""
        length = round(self.settings.horizon_us * _SLOT)
        slot, since_us = divmod(now_us - self.survey.info.first_us, length)
        late = since_us > self.settings.horizon_us * _LATEST_START
        if slot <= self._slot or not (late or len(self._books) == len(self.survey.ticks)):
            return  # the first slot waits until every symbol has a book, as long as that is not too late
        self._slot = slot
        self._expire(now_us)
        if late:
            return
        starts_us = now_us - since_us
        if starts_us + length <= self.split_us:
            part = self.fitted
        elif self.split_us <= starts_us <= self.survey.info.last_us - length:
            part = self.held_out
        else:
            return
        for symbol, book in self._books.items():
            if book.state == "live":
                self._place(symbol, book, now_us, slot, part)

    def _place(self, symbol: str, book: OrderBookSnapshot, now_us: int, slot: int, part: Part) -> None:
        for zone in self.zones:
            draw = random.Random(f"{self.seed}:{symbol}:{zone.zone_id}:{slot}").random  # noqa: S311 - not a secret
            entry_bps = _within(zone.entry_min, zone.entry_max, draw())
            tp_bps = _within(zone.tp_min, zone.tp_max, draw())
            trial = start_trial(book, now_us, entry_bps, tp_bps, self.survey.ticks.get(symbol), self.settings)
            if trial is not None:
                part.started += 1
                self._placed[symbol].append(_Placed(zone.zone_id, self.first_slot + slot, trial, part))

    def _expire(self, now_us: int) -> None:
        """End the trials whose horizon is over."""
        for symbol, placed in self._placed.items():
            for one in placed:
                one.trial.expire(now_us)
            self._collect(symbol)

    def _collect(self, symbol: str) -> None:
        left = []
        for one in self._placed[symbol]:
            trial, outcomes = one.trial, one.part.zones[one.zone_id]
            if not trial.done:
                left.append(one)
                continue
            one.part.void += trial.void
            # A decided entry counts even if the book was lost later.
            if trial.entered is not None:
                outcomes.buy.append(Outcome(one.slot, trial.entered))
            if trial.exited is not None:
                outcomes.sell.append(Outcome(one.slot, trial.exited))
        self._placed[symbol] = left


def _within(low: float, high: float, share: float) -> float:
    return min(low + (high - low) * share, math.nextafter(high, low))


def _play(
    tapes: Sequence[Tape],
    surveys: Sequence[TapeSurvey],
    splits: Sequence[int],
    zones: Sequence[ZoneSpec],
    method: Method,
    ahead: float | None,
) -> tuple[Part, Part]:
    """Results of the trials before and after the split of each tape."""
    settings = TrialSettings(
        round(method.horizon_seconds * 1e6),
        method.order_notional,
        QueueFill(ahead or 0.0, round(method.latency_ms * 1e3)),
    )
    fitted, held_out = Part(), Part()
    for number, (tape, seen, split_us) in enumerate(zip(tapes, surveys, splits, strict=True)):
        first_slot = number * _SLOTS_PER_TAPE
        TrialRun(zones, settings, method.seed, seen, split_us, fitted, held_out, first_slot).play(tape)
    return fitted, held_out


def _split_us(seen: TapeSurvey, fit_share: float) -> int:
    return seen.info.first_us + round((seen.info.last_us - seen.info.first_us) * fit_share)


def _zone(spec: ZoneSpec, fitted: ZoneOutcomes, held_out: ZoneOutcomes, minimum: int) -> Zone:
    buy = fitted.buy if len(fitted.buy) >= minimum else []
    sell = fitted.sell if buy and len(fitted.sell) >= minimum else []
    few = [
        f"{len(found)} {what}, {minimum} are needed"
        for found, what in ((fitted.buy, "entries"), (fitted.sell, "exits"))
        if len(found) < minimum
    ]
    return Zone(
        zone_id=spec.zone_id,
        entry_min=spec.entry_min,
        entry_max=spec.entry_max,
        tp_min=spec.tp_min,
        tp_max=spec.tp_max,
        buy_fill_ratio=share(buy),
        sell_fill_ratio=share(sell),
        samples=len(fitted.buy),
        buy_samples=len(fitted.buy),
        sell_samples=len(fitted.sell),
        buy_interval=interval(buy),
        sell_interval=interval(sell),
        usable=not few,
        reason="; ".join(few),
        hold_out_buy_samples=len(held_out.buy),
        hold_out_buy_ratio=share(held_out.buy),
        hold_out_sell_samples=len(held_out.sell),
        hold_out_sell_ratio=share(held_out.sell),
    )


def _base_rate(part: Part, side: Side) -> float | None:
    """Fill ratio of all zones together."""
    together: list[Outcome] = []
    for found in part.zones.values():
        together += found.buy if side == "buy" else found.sell
    return share(together)
