"""Acceptance of a run: one row for each criterion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import ages, relative_spread, volumes_by_market
from bookbus.consumers.paper.kpi import Kpi
from bookbus.schemas.snapshot import Side

Verdict = Literal["passed", "failed", "unknown"]

MINIMUM_SECONDS = 300.0
MINIMUM_FILLS = 40
MINIMUM_SPREAD = 0.1
MAXIMUM_RECONNECTS = 1
MAXIMUM_GAP = 10.0
MAXIMUM_SKIPPED = 0.1
_TRADABLE = "live"
_BY_DESIGN = frozenset({"open_trade", "zone_unknown", "zone_unusable", "zone_refused"})
"""Skip reasons that the settings ask for; all others are failures."""


@dataclass(frozen=True, slots=True)
class Row:
    """One criterion and its verdict; `asked` and `measured` are for people."""

    name: str
    asked: str
    measured: str
    outcome: Verdict


def judge(run: RunFiles) -> list[Row]:
    """A row for every criterion; its verdict is `unknown` where the files do not decide it."""
    return [
        _duration(run),
        _fills(run),
        _spread(run, "buy"),
        _spread(run, "sell"),
        _from_kpi(run, "Reconnects", f"at most {MAXIMUM_RECONNECTS}", _reconnects),
        _from_kpi(run, "Fatal errors", "none", _fatal_errors),
        _from_kpi(run, "Trades on a stale or suspect book", "none", lambda kpi: _books(run, kpi)),
        _from_kpi(run, "Longest time without a book", f"at most {MAXIMUM_GAP:g} s", _gap),
        _from_kpi(run, "Decisions skipped", f"at most {MAXIMUM_SKIPPED:.0%}", _skipped),
        _from_kpi(run, "Events file", "whole, as the run wrote it", lambda kpi: _whole(run, kpi)),
    ]


def passed(rows: list[Row]) -> bool:
    return all(row.outcome == "passed" for row in rows)


def _verdict(holds: bool) -> Verdict:
    return "passed" if holds else "failed"


def _from_kpi(run: RunFiles, name: str, asked: str, judged: Callable[[Kpi], tuple[str, Verdict]]) -> Row:
    return Row(name, asked, *(judged(run.kpi) if run.kpi is not None else ("no KPI file", "unknown")))


def _duration(run: RunFiles) -> Row:
    asked = f"at least {MINIMUM_SECONDS:g} s"
    if run.kpi is not None:
        seconds = run.kpi.actual_duration_seconds
        return Row("Duration", asked, f"{seconds:.1f} s", _verdict(seconds >= MINIMUM_SECONDS))
    # Without a KPI file, first and last event give a lower bound.
    span = max(run.times) - min(run.times) if run.times else 0.0
    known: Verdict = "passed" if span >= MINIMUM_SECONDS else "unknown"
    return Row("Duration", asked, f"{span:.1f} s from the first event to the last, no KPI file", known)


def _fills(run: RunFiles) -> Row:
    fills = sum(event.filled_quantity > 0 for event in run.events)
    measured = f"{fills} of {len(run.events)} orders filled at least in part"
    return Row("Fill events", f"at least {MINIMUM_FILLS}", measured, _verdict(fills >= MINIMUM_FILLS))


def _spread(run: RunFiles, side: Side) -> Row:
    name, asked = f"{side.upper()} available volume", f"std/mean above {MINIMUM_SPREAD:g}"
    markets = volumes_by_market(run.events, side)
    spread = relative_spread(markets.values())
    count = sum(map(len, markets.values()))
    if spread is None:
        return Row(name, asked, f"{count} volumes, too few to judge", "unknown")
    within = "" if len(markets) == 1 else f" within {len(markets)} markets"
    return Row(name, asked, f"{spread:.3f}{within}, {count} volumes", _verdict(spread > MINIMUM_SPREAD))


def _reconnects(kpi: Kpi) -> tuple[str, Verdict]:
    return str(kpi.reconnects), _verdict(0 <= kpi.reconnects <= MAXIMUM_RECONNECTS)


def _fatal_errors(kpi: Kpi) -> tuple[str, Verdict]:
    return f"{kpi.fatal_errors} {kpi.error}".strip(), _verdict(kpi.fatal_errors == 0 and not kpi.error)


def _books(run: RunFiles, kpi: Kpi) -> tuple[str, Verdict]:
    statuses = kpi.orders_by_book_status
    bad = sum(count for status, count in statuses.items() if status != _TRADABLE)
    limit = kpi.settings.max_age * 1e3
    old = sum(age > limit for age in ages(run.events))
    if bad or old:
        return f"{bad} on a book that was not live, {old} on one older than {limit:g} ms", "failed"
    judged = statuses.get(_TRADABLE, 0)
    if judged < len(run.events) or not judged:
        return f"{judged} of {len(run.events)} orders have their book's status on record", "unknown"
    return f"none of {judged}, oldest {max(ages(run.events), default=0.0):.0f} ms", "passed"


def _gap(kpi: Kpi) -> tuple[str, Verdict]:
    if not kpi.total_iterations:
        return "the run made no step", "unknown"
    longest = kpi.gaps.longest_seconds
    return f"{longest:.1f} s, {kpi.gaps.count} in all", _verdict(longest <= MAXIMUM_GAP)


def _skipped(kpi: Kpi) -> tuple[str, Verdict]:
    by_design = sum(count for reason, count in kpi.skipped_decisions.items() if reason in _BY_DESIGN)
    failures = {reason: count for reason, count in kpi.skipped_decisions.items() if reason not in _BY_DESIGN}
    free = kpi.decisions - by_design
    if free <= 0:
        return f"all of {kpi.decisions} skipped by design", "unknown"
    share = sum(failures.values()) / free
    reasons = ", ".join(f"{count} {reason}" for reason, count in failures.items()) or "none"
    return f"{share:.1%} of {free}: {reasons}; {by_design} more by design", _verdict(share <= MAXIMUM_SKIPPED)


def _whole(run: RunFiles, kpi: Kpi) -> tuple[str, Verdict]:
    if run.lines.bad:
        return f"{run.lines.bad} bad lines; {run.lines.first_bad[0]}", "failed"
    if len(run.events) != kpi.fill_events_count:
        return f"{len(run.events)} events, the run wrote {kpi.fill_events_count}", "failed"
    if run.sha256 != kpi.fill_events_sha256:
        return "another content than the run wrote", "failed"
    return f"{len(run.events)} events, SHA-256 as written", "passed"
