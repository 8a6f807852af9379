"""Hypothetical trades along one tape, one after the other in every zone."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from consumers.paper.calibration_statistics import Outcome
from consumers.paper.calibration_tape import Tape, TapeSurvey
from consumers.paper.calibration_trial import Trial, TrialSettings, begin
from consumers.paper.calibration_zones import NamedZone
from schemas.snapshot import OrderBookSnapshot

_LATEST_START = 0.1
"""Share of the horizon within which a slot must bring a book to decide on."""

_SLOT = 2 + _LATEST_START
"""Horizons from one placement to the next: entry and exit are over before the next one of the zone begins."""


@dataclass(slots=True)
class ZoneOutcomes:
    """What became of one zone's trials."""

    buy: list[Outcome] = field(default_factory=list)
    sell: list[Outcome] = field(default_factory=list)


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

    Slots that end by `split_us` are for `fitted`, those that begin after it for `held_out`, any between for none.
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
    _slots: dict[str, int] = field(default_factory=dict)

    def play(self, tape: Tape) -> None:
        """The whole tape."""
        for event in tape.events():
            placed = self._placed[event.symbol]
            for one in placed:
                one.trial.receive(event)
            if any(one.trial.done for one in placed):
                self._collect(event.symbol)
            if isinstance(event, OrderBookSnapshot) and event.state == "live":
                self._place(event)
        for symbol in list(self._placed):
            self._collect(symbol, at_end=True)

    def _place(self, book: OrderBookSnapshot) -> None:
        length = round(self.settings.horizon_us * _SLOT)
        slot, since_us = divmod(book.received_us - self.survey.info.first_us, length)
        if slot <= self._slots.get(book.symbol, -1) or since_us > self.settings.horizon_us * _LATEST_START:
            return
        self._slots[book.symbol] = slot
        starts_us = self.survey.info.first_us + slot * length
        if starts_us + length <= self.split_us:
            part = self.fitted
        elif starts_us >= self.split_us:
            part = self.held_out
        else:
            return
        for zone in self.zones:
            draw = random.Random(f"{self.seed}:{book.symbol}:{zone.zone_id}:{slot}").random  # noqa: S311 - not a secret
            entry_bps = _within(zone.entry_min, zone.entry_max, draw())
            tp_bps = _within(zone.tp_min, zone.tp_max, draw())
            trial = begin(book, entry_bps, tp_bps, self.survey.ticks.get(book.symbol), self.settings)
            if trial is not None:
                part.started += 1
                self._placed[book.symbol].append(_Placed(zone.zone_id, self.first_slot + slot, trial, part))

    def _collect(self, symbol: str, at_end: bool = False) -> None:
        """Count what is done; at the end of the tape the rest stays undecided."""
        left = []
        for one in self._placed[symbol]:
            trial, outcomes = one.trial, one.part.zones[one.zone_id]
            if not trial.done and not at_end:
                left.append(one)
            elif trial.void or not trial.done:
                one.part.void += 1
            else:
                outcomes.buy.append(Outcome(one.slot, trial.entered is True))
                if trial.exited is not None:
                    outcomes.sell.append(Outcome(one.slot, trial.exited))
        self._placed[symbol] = left


def _within(low: float, high: float, share: float) -> float:
    return min(low + (high - low) * share, math.nextafter(high, low))
