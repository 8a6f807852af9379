"""One HTML page about a run, or about several runs compared."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bookbus.consumers.analysis import plots
from bookbus.consumers.analysis.acceptance import Row, passed
from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import (
    MEASURES,
    PERMUTATIONS,
    SIDES,
    Difference,
    Summary,
    ages,
    by_zone,
    compare_samples,
    measured,
    pnl_curve,
    summarize,
)
from bookbus.consumers.paper.calibration.statistics import percentile

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1c2430;background:#f5f6f8;margin:0 auto;max-width:1060px;padding:24px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:0 0 8px}section{background:#fff;border:1px solid #dfe3e8;
border-radius:8px;padding:16px 20px;margin:16px 0}table{border-collapse:collapse;width:100%}th,td{padding:4px 10px;
text-align:right;border-bottom:1px solid #edf0f3;font-variant-numeric:tabular-nums}th{color:#5f6b7a;font-weight:600}
th.text,td.text{text-align:left}td.text{overflow-wrap:anywhere}
img{width:100%;height:auto}.note{color:#5f6b7a;margin:6px 0 0}
td.passed,td.failed,td.unknown{font-weight:700;white-space:nowrap}.passed{color:#00734f}.failed{color:#b00020}
.unknown{color:#8a5a00}.banner{border-left:10px solid currentColor}.banner h1,.figures{color:#1c2430}
.banner strong{font-size:26px}.figures{display:flex;flex-wrap:wrap;gap:10px 36px;margin-top:10px}
.figures b{display:block;font-size:19px}.wide{overflow-x:auto}
"""

COMPARISON_NOTE = (
    f"KS: Kolmogorov–Smirnov by {PERMUTATIONS} permutations. Delta: how much oftener a value of the run is above one "
    "of the first than below it. Values near each other in time depend on each other, which makes every p too small: "
    "go by the size of the effect."
)

_SUMMARY_HEADS = ("n", "min", "max", "mean", "median", "std")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text; the first `text_columns` are aligned left. A cell that is a verdict has its colour."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


def run_page(run: RunFiles, rows: list[Row]) -> str:
    """The page of one run: verdict, plots, figures."""
    failed = sum(row.outcome == "failed" for row in rows)
    unknown = sum(row.outcome == "unknown" for row in rows)
    outcome = "passed" if passed(rows) else "failed" if failed else "unknown"
    counts = [f"{failed} of {len(rows)} rows failed"] * bool(failed) + [f"{unknown} unknown"] * bool(unknown)
    verdict = "PASSED" if outcome == "passed" else f"NOT PASSED: {', '.join(counts)}"
    return _page(
        f"Paper run {run.session_id}",
        [
            _banner(f"Paper run {run.session_id}", verdict, outcome, _key_figures(run)),
            _section("Verdict", _table(verdict_table(rows)), note=_settings(run)),
            _section("Fills over the mid price", _picture(plots.fills_over_mid(run), "fills over the mid price")),
            _section("Profit", _picture(plots.pnl(run), "profit over time"), note="Positions at the last known mid."),
            _section("Available volume", _picture(plots.volumes(run), "available volume")),
            _section("Slippage", _picture(plots.slippages(run), "slippage")),
            _section(
                "Fills by zone",
                _picture(plots.zones(run), "fills by zone"),
                _table(zone_table(run)),
                note=_mismatches(run),
            ),
            _section("Age of the books traded on", _picture(plots.book_ages(run), "book ages")),
            _section("By side", _table(side_table([(run.session_id, run)]))),
            _section("Times and mark-outs", _table(time_table(run)), note="Mark-outs: positive is in our favour."),
        ],
    )


def comparison_page(runs: Sequence[tuple[str, RunFiles]]) -> str:
    """The page of several runs: figures, tests against the first run, distributions."""
    drawn = [
        _section(f"{label.capitalize()}, {side}", _picture(_overlaid(runs, measure, side, label), f"{label}, {side}"))
        for measure, label in MEASURES.items()
        for side in SIDES
    ]
    title = f"{len(runs)} paper runs beside each other"
    return _page(
        title,
        [
            _section(title, _table(run_table(runs))),
            _section("By side", _table(side_table(runs))),
            _section("Differences", _table(difference_table(runs)), note=COMPARISON_NOTE),
            *drawn,
        ],
    )


def write_page(directory: Path, name: str, text: str) -> Path:
    """Write a page and return its path. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def verdict_table(rows: Sequence[Row]) -> Table:
    return Table(("row", "asked", "found", ""), [(row.name, row.asked, row.measured, row.outcome) for row in rows], 4)


def side_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Summary of each measure and side, one row a run."""
    several = len(runs) > 1
    rows = [
        (label, side, *([name] if several else []), *_cells(summarize(measured(run.events, measure, side))))
        for measure, label in MEASURES.items()
        for side in SIDES
        for name, run in runs
    ]
    return Table(("", "side", *(["run"] if several else []), *_SUMMARY_HEADS), rows, 3 if several else 2)


def zone_table(run: RunFiles) -> Table:
    """Fill ratios of each zone's entries and exits, with the model's."""
    rows = [
        (
            one.zone_id,
            {"buy": "entries filled whole", "sell": "exits by take-profit"}[one.side],
            str(one.count),
            _number(one.ratio, 3),
            "–" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}",
            _number(one.expected, 3),
            _number(one.mean_fill_ratio, 3),
        )
        for one in by_zone(run)
    ]
    return Table(("zone", "of", "n", "share", "95 % interval", "model", "mean fill ratio"), rows, 2)


def time_table(run: RunFiles) -> Table:
    """Book ages, mark-outs and waiting times."""
    found = ages(run.events)
    rows = [("book age, ms", "both", *_cells(summarize(found)), _number(percentile(found, 99)))]
    for seconds in (1, 5, 30):
        for side in SIDES:
            values = measured(run.events, f"markout_{seconds}s_bps", side)
            rows.append(
                (f"mark-out {seconds} s, bps", side, *_cells(summarize(values)), _number(percentile(values, 99)))
            )
    latencies = [event.latency_ms for event in run.events if event.latency_ms is not None]
    rows.append(("wait for a fill, ms", "both", *_cells(summarize(latencies)), _number(percentile(latencies, 99))))
    return Table(("", "side", *_SUMMARY_HEADS, "p99"), rows, 2)


def run_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Name, session, source and markets of each run."""
    rows = []
    for name, run in runs:
        markets = sorted({f"{event.symbol} on {event.exchange}" for event in run.events})
        sources = sorted({event.l2_source for event in run.events})
        models = sorted({event.fill_model for event in run.events})
        orders, bad = str(len(run.events)), str(run.lines.bad)
        rows.append((name, run.session_id, ", ".join(sources), ", ".join(markets), ", ".join(models), orders, bad))
    return Table(("run", "session", "source", "markets", "fill model", "orders", "bad lines"), rows, 5)


def difference_table(runs: Sequence[tuple[str, RunFiles]]) -> Table:
    """Tests of every later run against the first."""
    (first_name, first), *others = runs
    rows = []
    for measure, label in MEASURES.items():
        for side in SIDES:
            before = measured(first.events, measure, side)
            for name, run in others:
                difference = compare_samples(before, measured(run.events, measure, side))
                rows.append((label, side, name, *_difference_cells(difference)))
    return Table(("", "side", f"against {first_name}", "KS", "p", "Mann–Whitney p", "Cliff's delta", "effect"), rows, 3)


def _page(title: str, sections: Iterable[str]) -> str:
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(sections)}</body></html>\n'


def _banner(title: str, verdict: str, outcome: str, figures: Iterable[tuple[str, str]]) -> str:
    shown = "".join(f"<span>{html.escape(name)}<b>{html.escape(value)}</b></span>" for name, value in figures)
    return (
        f'<section class="banner {outcome}"><h1>{html.escape(title)}</h1>'
        f'<strong class="{outcome}">{html.escape(verdict)}</strong><div class="figures">{shown}</div></section>'
    )


def _section(title: str, *parts: str, note: str = "") -> str:
    remark = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}{remark}</section>"


def _picture(png: bytes, description: str) -> str:
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(content: Table) -> str:
    heads = "".join(
        f"<th{_class(place, content, '')}>{html.escape(head)}</th>" for place, head in enumerate(content.heads)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{_class(place, content, cell)}>{html.escape(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in content.rows
    )
    return f'<div class="wide"><table><tr>{heads}</tr>{rows}</table></div>'


def _class(place: int, content: Table, cell: str) -> str:
    names = ["text"] if place < content.text_columns else []
    if cell in ("passed", "failed", "unknown"):
        names.append(cell)
    return f' class="{" ".join(names)}"' if names else ""


def _overlaid(runs: Sequence[tuple[str, RunFiles]], measure: str, side: str, label: str) -> bytes:
    samples = [(name, measured(run.events, measure, "buy" if side == "buy" else "sell")) for name, run in runs]
    return plots.overlaid(samples, label, logarithmic=measure == "available_volume")


def _key_figures(run: RunFiles) -> list[tuple[str, str]]:
    fills = sum(event.filled_quantity > 0 for event in run.events)
    kpi, curve = run.kpi, pnl_curve(run)
    if kpi is None:
        return [("fills", str(fills)), ("profit", _number(curve[-1].after_fees) if curve else "–")]
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
        return "There is no KPI file beside the events: the figures that only it holds are unknown."
    synthetic = " The market is made up." if kpi.l2_source == "mock" else ""
    start, end = (time[:19].replace("T", " ") for time in (kpi.start_time, kpi.end_time))
    return (
        f"{', '.join(kpi.symbols)} from {kpi.l2_source}, fill model {kpi.fill_model}, calibration "
        f"{kpi.calibration_version or 'none'}, from {start} to {end} UTC.{synthetic}"
    )


def _mismatches(run: RunFiles) -> str:
    if run.kpi is None or not run.kpi.calibration_misfits:
        return ""
    return f"The calibration does not apply to this run: {'; '.join(run.kpi.calibration_misfits)}."


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "none"


def _cells(summary: Summary) -> tuple[str, ...]:
    values = (summary.minimum, summary.maximum, summary.mean, summary.median, summary.std)
    return (str(summary.count), *(_number(value) for value in values))


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


def _number(value: float | None, digits: int = 4) -> str:
    """Four digits by default; `–` for None."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
