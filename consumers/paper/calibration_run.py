"""Hypothetical trades along one tape, one after the other in every zone."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bookbus.consumers.paper.calibration.statistics import Outcome, ZoneOutcomes
from bookbus.consumers.paper.calibration.tape import Tape, TapeSurvey
from bookbus.consumers.paper.calibration_trial import Trial, TrialSettings, begin
from bookbus.consumers.paper.calibration_zones import NamedZone
from bookbus.schemas.snapshot import OrderBookSnapshot

_LATEST_START = 0.1
"""Share of the horizon within which a slot must bring something, so that the tape is known to go on."""

_SLOT = 2 + _LATEST_START
"""Horizons from one placement to the next: entry and exit are over before the next one of the zone begins."""


@dataclass(slots=True)
class Part:
    """What became of the trials in one part of the tapes, by zone. `void` counts those the tape could not decide."""

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
    """Places a trial of every zone in every slot of every symbol; slots are the same for all, so that they compare.

    Slots that end by `split_us` are for `fitted`, those that begin after it for `held_out`; one between, or one that
    the tape ends within, is for neither.
    """

    zones: Sequence[NamedZone]
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
        """The whole tape."""
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
        """Place trials if a slot begins: on the newest book of every symbol, however long it has been unchanged."""
        length = round(self.settings.horizon_us * _SLOT)
        slot, since_us = divmod(now_us - self.survey.info.first_us, length)
        late = since_us > self.settings.horizon_us * _LATEST_START
        if slot <= self._slot or not (late or len(self._books) == len(self.survey.ticks)):
            return  # a slot before the last symbol's first book waits for it, while there is time
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
            trial = begin(book, now_us, entry_bps, tp_bps, self.survey.ticks.get(symbol), self.settings)
            if trial is not None:
                part.started += 1
                self._placed[symbol].append(_Placed(zone.zone_id, self.first_slot + slot, trial, part))

    def _expire(self, now_us: int) -> None:
        """Every horizon that ended before now is over, also where nothing happens."""
        for symbol, placed in self._placed.items():
            for one in placed:
                one.trial.expire(now_us)
            self._collect(symbol)

    def _collect(self, symbol: str) -> None:
        """Count what is done."""
        left = []
        for one in self._placed[symbol]:
            trial, outcomes = one.trial, one.part.zones[one.zone_id]
            if not trial.done:
                left.append(one)
                continue
            one.part.void += trial.void
            # An entry that was decided counts, whatever the tape lost after it.
            if trial.entered is not None:
                outcomes.buy.append(Outcome(one.slot, trial.entered))
            if trial.exited is not None:
                outcomes.sell.append(Outcome(one.slot, trial.exited))
        self._placed[symbol] = left


def _within(low: float, high: float, share: float) -> float:
    return min(low + (high - low) * share, math.nextafter(high, low))
