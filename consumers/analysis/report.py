"""A run, or several beside each other, as one HTML page."""

from collections.abc import Mapping, Sequence

from bookbus.consumers.analysis import plots, tables
from bookbus.consumers.analysis.acceptance import Row, passed
from bookbus.consumers.analysis.comparison import PERMUTATIONS
from bookbus.consumers.analysis.page import banner, number, page, picture, section, table
from bookbus.consumers.analysis.profit import profit_curve
from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import MEASURES, SIDES, measured

COMPARISON_NOTE = (
    f"KS: Kolmogorov–Smirnov by {PERMUTATIONS} permutations. Delta: how much oftener a value of the run is above one "
    "of the first than below it. Values near each other in time depend on each other, which makes every p too small: "
    "go by the size of the effect."
)


def run_page(run: RunFiles, rows: list[Row]) -> str:
    """The verdict, the plots, the figures."""
    failed = sum(row.outcome == "failed" for row in rows)
    unknown = sum(row.outcome == "unknown" for row in rows)
    outcome = "passed" if passed(rows) else "failed" if failed else "unknown"
    counts = [f"{failed} of {len(rows)} rows failed"] * bool(failed) + [f"{unknown} unknown"] * bool(unknown)
    verdict = "PASSED" if outcome == "passed" else f"NOT PASSED: {', '.join(counts)}"
    return page(
        f"Paper run {run.session_id}",
        [
            banner(f"Paper run {run.session_id}", verdict, outcome, _key_figures(run)),
            section("Verdict", table(tables.verdict_table(rows)), note=_settings(run)),
            section("Fills over the mid price", picture(plots.fills_over_mid(run), "fills over the mid price")),
            section("Profit", picture(plots.profit(run), "profit over time"), note="Positions at the last known mid."),
            section("Available volume", picture(plots.volumes(run), "available volume")),
            section("Slippage", picture(plots.slippages(run), "slippage")),
            section(
                "Fills by zone",
                picture(plots.zones(run), "fills by zone"),
                table(tables.zone_table(run)),
                note=_misfits(run),
            ),
            section("Age of the books traded on", picture(plots.book_ages(run), "book ages")),
            section("By side", table(tables.side_table([(run.session_id, run)]))),
            section("Times and mark-outs", table(tables.time_table(run)), note="Mark-outs: positive is in our favour."),
        ],
    )


def comparison_page(runs: Sequence[tuple[str, RunFiles]]) -> str:
    """The same figures of every run, tests against the first, distributions over each other."""
    drawn = [
        section(f"{label.capitalize()}, {side}", picture(_overlaid(runs, measure, side, label), f"{label}, {side}"))
        for measure, label in MEASURES.items()
        for side in SIDES
    ]
    title = f"{len(runs)} paper runs beside each other"
    return page(
        title,
        [
            section(title, table(tables.run_table(runs))),
            section("By side", table(tables.side_table(runs))),
            section("Differences", table(tables.difference_table(runs)), note=COMPARISON_NOTE),
            *drawn,
        ],
    )


def _overlaid(runs: Sequence[tuple[str, RunFiles]], measure: str, side: str, label: str) -> bytes:
    samples = [(name, measured(run.events, measure, "buy" if side == "buy" else "sell")) for name, run in runs]
    return plots.overlaid(samples, label, logarithmic=measure == "available_volume")


def _key_figures(run: RunFiles) -> list[tuple[str, str]]:
    fills = sum(event.filled_quantity > 0 for event in run.events)
    kpi, curve = run.kpi, profit_curve(run)
    if kpi is None:
        return [("fills", str(fills)), ("profit", number(curve[-1].after_fees) if curve else "–")]
    return [
        ("profit after fees", f"{kpi.total_pnl:+.4g} {kpi.quote}"),
        ("fees", f"{kpi.fees:.4g} {kpi.quote}"),
        ("trades", f"{kpi.closed_trades}, {kpi.winning_trades} with profit"),
        ("orders filled", f"{fills} of {len(run.events)}"),
        ("positions left by", _counts(kpi.exits)),
        ("run", f"{kpi.actual_duration_seconds:.0f} s, ended by {kpi.end_reason.replace('_', ' ')}"),
    ]


def _settings(run: RunFiles) -> str:
    kpi = run.kpi
    if kpi is None:
        return "No KPI file lies beside the events: what only it tells is unknown."
    made_up = " The market is made up." if kpi.l2_source == "mock" else ""
    start, end = (time[:19].replace("T", " ") for time in (kpi.start_time, kpi.end_time))
    return (
        f"{', '.join(kpi.symbols)} from {kpi.l2_source}, fill model {kpi.fill_model}, calibration "
        f"{kpi.calibration_version or 'none'}, from {start} to {end} UTC.{made_up}"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "none"


def _misfits(run: RunFiles) -> str:
    if run.kpi is None or not run.kpi.calibration_misfits:
        return ""
    return f"The calibration does not speak for this run: {'; '.join(run.kpi.calibration_misfits)}."
