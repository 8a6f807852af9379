"""Results of a soak run: a table, and the failures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.soak.reader import Report
from tests.chaos.soak.resources import Sample, Slope, memory_slope, usual

WARM_UP = 300.0
"""Seconds whose memory is not checked: caches and books fill."""

_FLAT = 1.0
"""Growth in MB per hour that is always accepted."""


@dataclass
class Outcome:
    """All observations of a run."""

    seconds: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    not_recovered: list[str] = field(default_factory=list)
    suspects: int = 0
    false_suspects: list[str] = field(default_factory=list)
    late_readers: list[str] = field(default_factory=list)
    exit_codes: dict[str, int] = field(default_factory=dict)


def table(outcome: Outcome) -> list[str]:
    """Lines of text."""
    heads = f"{'memory MB':>15} {'slope MB/h':>14} {'second half':>14} {'files':>9} {'threads':>9} {'tasks':>9}"
    lines = [f"{'process':18} {heads}"]
    for name, samples in outcome.samples.items():
        memory = f"{samples[0].memory_mb:.1f} - {samples[-1].memory_mb:.1f}" if samples else "-"
        whole, late = _shown(memory_slope(samples, WARM_UP)), _shown(_late_slope(samples))
        counts = [_change(each) for each in _counts(samples)]
        lines.append(f"{name:18} {memory:>15} {whole:>14} {late:>14} {counts[0]:>9} {counts[1]:>9} {counts[2]:>9}")
    for name, report in outcome.reports.items():
        lines.append(
            f"{name}: {report.compared:,} books compared, {len(report.wrong)} wrong, {report.unknown} unknown to the "
            f"exchange, {report.older} older after newer; {report.ages_judged:,} ages of live books, "
            f"{len(report.stale)} too old, {report.oldest:.1f} s at most; {report.missed} updates missed, "
            f"{report.reconnects} reconnects"
        )
    worst = max(outcome.recoveries, default=0.0)
    mean = sum(outcome.recoveries) / max(1, len(outcome.recoveries))
    lines.append(f"{outcome.faults.total()} faults; live again after {mean:.1f} s on average, {worst:.1f} s at worst")
    lines += [f"  {count:4} {name}" for name, count in sorted(outcome.faults.items())]
    lines.append(f"{outcome.suspects} books suspect, {len(outcome.false_suspects)} of them without a fault")
    others = [f"{name} {used / outcome.seconds:.1%}" for name, used in outcome.processor.items()]
    lines.append(f"{sum(outcome.processor.values()) / outcome.seconds:.0%} of one core: {', '.join(others)}")
    return lines


def failures(outcome: Outcome) -> list[str]:
    """The failures; empty for a run that passed."""
    found = [f"{name} ended with code {code}" for name, code in outcome.exit_codes.items() if code]
    for name, report in outcome.reports.items():
        if not report.compared:
            found.append(f"{name} compared nothing")
        found += [f"wrong book: {wrong}" for wrong in report.wrong[:5]]
        found += [f"stale as live: {stale}" for stale in report.stale[:5]]
        found += [] if report.ages_judged else [f"{name} judged no age"]
        found += [f"{name}: {report.unknown} live books unknown to the exchange"] if report.unknown else []
        found += [f"{name}: {report.older} older books after newer ones"] if report.older else []
        found += [f"{name}: not live at the end: {reason}" for reason in report.not_live[:5]]
    found += [f"suspect without a fault: {each}" for each in outcome.false_suspects[:10]]
    found += [f"not live again in time: {each}" for each in outcome.not_recovered]
    found += [f"not live without a fault: {each}" for each in outcome.late_readers[:10]]
    for name, samples in outcome.samples.items():
        found += [f"{name}: {complaint}" for complaint in _growth(samples)]
    return found


def _growth(samples: Sequence[Sample]) -> list[str]:
    found = []
    slope = _late_slope(samples)
    if slope is not None and slope.per_hour > max(_FLAT, 2 * slope.error):
        found.append(f"memory grows by {slope.per_hour:.2f} ± {slope.error:.2f} MB an hour")
    for what, counts in zip(("files", "threads", "tasks"), _counts(samples), strict=True):
        medians = usual(counts)
        if medians is not None and medians[1] > medians[0]:
            found.append(f"{what} grow: {medians[0]} at first, {medians[1]} at last")
    return found


def _late_slope(samples: Sequence[Sample]) -> Slope | None:
    """Slope of the second half: a leak continues, while buffers grow to the largest message once."""
    return memory_slope(samples, max(WARM_UP, samples[-1].at / 2)) if samples else None


def _shown(slope: Slope | None) -> str:
    return "too short" if slope is None else f"{slope.per_hour:+.2f} ± {slope.error:.2f}"


def _counts(samples: Sequence[Sample]) -> tuple[list[int], list[int], list[int]]:
    tasks = [each.tasks for each in samples if each.tasks is not None]
    return [each.descriptors for each in samples], [each.threads for each in samples], tasks


def _change(counts: Sequence[int]) -> str:
    medians = usual(counts)
    return "-" if medians is None else f"{medians[0]} - {medians[1]}"
