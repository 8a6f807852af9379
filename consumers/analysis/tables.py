"""What is known of runs, as tables for people."""

from collections.abc import Sequence

from bookbus.consumers.analysis.acceptance import Row
from bookbus.consumers.analysis.comparison import Difference, compare_samples
from bookbus.consumers.analysis.page import Table, number
from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import (
    MEASURES,
    SIDES,
    Summary,
    ages,
    by_zone,
    measured,
    percentile,
    summarize,
)

_SUMMARY_HEADS = ("n", "min", "max", "mean", "median", "std")


def verdict_table(rows: Sequence[Row]) -> Table:
    """What was asked and what was found."""
    return Table(("row", "asked", "found", ""), [(row.name, row.asked, row.measured, row.outcome) for row in rows], 4)


def side_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Each measure of each side, the runs below each other."""
    several = len(runs) > 1
    rows = [
        (label, side, *([name] if several else []), *_cells(summarize(measured(run.events, measure, side))))
        for measure, label in MEASURES.items()
        for side in SIDES
        for name, run in runs
    ]
    return Table(("", "side", *(["run"] if several else []), *_SUMMARY_HEADS), rows, 3 if several else 2)


def zone_table(run: RunFiles) -> Table:
    """Each zone's entries and exits beside what the model said of them."""
    rows = [
        (
            one.zone_id,
            {"buy": "entries filled whole", "sell": "exits by take-profit"}[one.side],
            str(one.count),
            number(one.ratio, 3),
            "–" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}",
            number(one.expected, 3),
            number(one.mean_fill_ratio, 3),
        )
        for one in by_zone(run)
    ]
    return Table(("zone", "of", "n", "share", "95 % interval", "model", "mean fill ratio"), rows, 2)


def time_table(run: RunFiles) -> Table:
    """Ages and mark-outs."""
    found = ages(run.events)
    rows = [("book age, ms", "both", *_cells(summarize(found)), number(percentile(found, 99)))]
    for seconds in (1, 5, 30):
        for side in SIDES:
            values = measured(run.events, f"markout_{seconds}s_bps", side)
            rows.append(
                (f"mark-out {seconds} s, bps", side, *_cells(summarize(values)), number(percentile(values, 99)))
            )
    latencies = [event.latency_ms for event in run.events if event.latency_ms is not None]
    rows.append(("wait for a fill, ms", "both", *_cells(summarize(latencies)), number(percentile(latencies, 99))))
    return Table(("", "side", *_SUMMARY_HEADS, "p99"), rows, 2)


def run_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Which run is which."""
    rows = []
    for name, run in runs:
        markets = sorted({f"{event.symbol} on {event.exchange}" for event in run.events})
        sources = sorted({event.l2_source for event in run.events})
        models = sorted({event.fill_model for event in run.events})
        orders, bad = str(len(run.events)), str(run.lines.bad)
        rows.append((name, run.session_id, ", ".join(sources), ", ".join(markets), ", ".join(models), orders, bad))
    return Table(("run", "session", "source", "markets", "fill model", "orders", "bad lines"), rows, 5)


def difference_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Every later run against the first."""
    (first_name, first), *others = runs
    rows = []
    for measure, label in MEASURES.items():
        for side in SIDES:
            before = measured(first.events, measure, side)
            for name, run in others:
                difference = compare_samples(before, measured(run.events, measure, side))
                rows.append((label, side, name, *_difference_cells(difference)))
    return Table(("", "side", f"against {first_name}", "KS", "p", "Mann–Whitney p", "Cliff's delta", "effect"), rows, 3)


def _cells(summary: Summary) -> tuple[str, ...]:
    values = (summary.minimum, summary.maximum, summary.mean, summary.median, summary.std)
    return (str(summary.count), *(number(value) for value in values))


def _difference_cells(difference: Difference | None) -> tuple[str, ...]:
    if difference is None:
        return ("–", "–", "–", "–", "too few values")
    return (
        f"{difference.ks:.3f}",
        _probability(difference.ks_p),
        _probability(difference.mann_whitney_p),
        f"{difference.delta:+.3f}",
        difference.size,
    )


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
