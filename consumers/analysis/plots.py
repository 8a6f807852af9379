"""Plots of runs as PNG images. Needs the `analysis` extra."""

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import (
    SIDES,
    VenueSymbol,
    ages,
    by_zone,
    measured,
    observed_mid_prices,
    pnl_curve,
)
from bookbus.consumers.paper.calibration.statistics import percentile
from bookbus.consumers.paper.records import FillEvent
from bookbus.schemas.snapshot import Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#5F6B7A"
_COLOURS: dict[Side, str] = {"buy": "#0072B2", "sell": "#D55E00"}
_MARKERS: dict[Side, Any] = {
    "buy": [(0, 0), (-0.6, -1), (0.6, -1), (0, 0)],
    "sell": [(0, 0), (-0.6, 1), (0.6, 1), (0, 0)],
}

_RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_RUN_STYLES = ("-", "--", "-.", ":")
_MOST_MARKETS = 4
_SECONDS_A_DAY = 86_400
_SMALLEST_AGE = 0.1
"""Milliseconds: a logarithmic axis has no zero."""

_SLIPPAGE_IN_SIGHT = 0.1
_TimedEvent = tuple[float, FillEvent]
"""Time in days since 1970, as matplotlib counts them, and the event."""


class PlotsMissingError(ImportError):
    """The `analysis` extra is not installed."""

    def __init__(self) -> None:
        super().__init__("plots need the `analysis` extra: pip install 'bookbus[analysis]'")


def fills_over_mid(run: RunFiles) -> bytes:
    """Mid price of each market with its orders; a hollow marker is an order without a fill."""
    markets = _markets(run)

    def draw(axes: list["Axes"]) -> None:
        if not markets:
            _write_instead(axes[0], "no orders on record")
        for market, axis in zip(markets, axes, strict=bool(markets)):
            seen = [(one.time / _SECONDS_A_DAY, one.mid) for one in observed_mid_prices(run) if one.market == market]
            axis.plot([time for time, _ in seen], [mid for _, mid in seen], color=_GREY, lw=1, label="mid")
            _draw_orders(axis, [pair for pair in _timed(run) if _market(pair[1]) == market])
            axis.set_title(str(market), loc="left", fontsize=11)
        _legend_below(axes[-1])

    return _picture(draw, rows=max(len(markets), 1), height=3.0)


def volumes(run: RunFiles) -> bytes:
    """Histogram of the available volume of each market."""
    markets = _markets(run)

    def draw(axes: list["Axes"]) -> None:
        if not markets:
            _write_instead(axes[0], "no orders on record")
        for market, axis in zip(markets, axes, strict=bool(markets)):
            found = {
                side: measured((one for one in run.events if _market(one) == market), "available_volume", side)
                for side in SIDES
            }
            positive = [value for values in found.values() for value in values if value > 0]
            _histogram(axis, found, _log_bins(positive), f"{market}: available at the best level")
            _log_axis(axis)
            axis.set_xlabel(f"quantity of {market.symbol.partition('-')[0]}")

    return _picture(draw, columns=max(len(markets), 1))


def slippages(run: RunFiles) -> bytes:
    def draw(axes: list["Axes"]) -> None:
        found = {side: measured(run.events, "slippage_bps", side) for side in SIDES}
        known = [value for values in found.values() for value in values]
        # The axis always contains zero, and differences near zero do not fill it.
        edges = _bins([*known, 0.0, _SLIPPAGE_IN_SIGHT]) if known else []
        _histogram(axes[0], found, edges, "")
        axes[0].axvline(0, color=_GREY, linewidth=1)
        axes[0].set_xlabel("bps against the best price at the decision; right of zero is cost")

    return _picture(draw)


def zones(run: RunFiles) -> bytes:
    """Fill ratio of each zone's entries and exits, with the model's."""

    def draw(axes: list["Axes"]) -> None:
        figures = by_zone(run)
        axis, names = axes[0], list(dict.fromkeys(one.zone_id for one in figures))
        for one in figures:
            if one.ratio is None or one.interval is None:
                continue
            x = names.index(one.zone_id) + (-0.12 if one.side == "buy" else 0.12)
            reach = [[one.ratio - one.interval[0]], [one.interval[1] - one.ratio]]
            label = {"buy": "entries filled whole", "sell": "exits by take-profit"}[one.side]
            axis.errorbar(x, one.ratio, yerr=reach, fmt="o", capsize=5, color=_COLOURS[one.side], label=label)
            axis.annotate(f"n={one.count}", (x, one.interval[1]), (0, 5), textcoords="offset points", ha="center")
            if one.expected is not None:
                axis.plot(x, one.expected, "D", color="black", markerfacecolor="none", ms=10, label="model")
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_ylim(-0.05, 1.12)
        axis.set_ylabel("share, with 95 % interval")
        _legend_below(axis)

    return _picture(draw)


def pnl(run: RunFiles) -> bytes:
    """PnL over time, after and before fees."""

    def draw(axes: list["Axes"]) -> None:
        axis, curve = axes[0], pnl_curve(run)
        times = [point.time / _SECONDS_A_DAY for point in curve]
        axis.axhline(0, color=_GREY, linewidth=1)
        axis.step(times, [one.before_fees for one in curve], where="post", color=_GREY, ls="--", label="before fees")
        axis.step(times, [one.after_fees for one in curve], where="post", color="#009E73", lw=2, label="after fees")
        axis.set_ylabel(run.kpi.quote if run.kpi is not None else "quote currency")
        _time_axis(axis)
        _legend_below(axis)

    return _picture(draw)


def book_ages(run: RunFiles) -> bytes:
    """Distribution function of the book ages that orders were decided on."""

    def draw(axes: list["Axes"]) -> None:
        axis, found = axes[0], sorted(max(age, _SMALLEST_AGE) for age in ages(run.events))
        if not found:
            _write_instead(axis, "no ages on record")
            return
        shares = [number / len(found) for number in range(1, len(found) + 1)]
        axis.step([found[0], *found], [0, *shares], where="post", color=_COLOURS["buy"], linewidth=2)
        _log_axis(axis)
        axis.axvline(percentile(found, 99) or 0, color=_GREY, linestyle=":", label="99 % are younger")
        if run.kpi is not None:
            axis.axvline(run.kpi.settings.max_age * 1e3, color="#B00020", label="limit: older is stale")
        axis.set_xlabel(f"age, ms; younger than {_SMALLEST_AGE:g} is drawn there")
        axis.set_ylabel("share of orders")
        _legend_below(axis)

    return _picture(draw)


def overlaid(samples: Sequence[tuple[str, Sequence[float]]], unit: str, *, logarithmic: bool) -> bytes:
    """Distribution functions of several runs in one plot."""

    def draw(axes: list["Axes"]) -> None:
        axis = axes[0]
        for number, (name, values) in enumerate(samples):
            found = sorted(value for value in values if value > 0 or not logarithmic)
            if found:
                shares = [place / len(found) for place in range(1, len(found) + 1)]
                colour, style = _RUN_COLOURS[number % len(_RUN_COLOURS)], _RUN_STYLES[number % len(_RUN_STYLES)]
                label = f"{name} (n={len(found)})"
                axis.step([found[0], *found], [0, *shares], where="post", lw=2, color=colour, ls=style, label=label)
        if logarithmic:
            _log_axis(axis)
        axis.set_xlabel(unit)
        axis.set_ylabel("share at or below")
        _legend_below(axis)

    return _picture(draw)


def _draw_orders(axis: "Axes", events: Sequence[_TimedEvent]) -> None:
    # The tip of a marker is at the price: buys are below it, sells above.
    for side in SIDES:
        done = [(time, one.effective_price or 0) for time, one in events if one.side == side and one.filled_quantity]
        missed = [(time, one.target_price) for time, one in events if one.side == side and not one.filled_quantity]
        for points, face, label in ((done, _COLOURS[side], "filled"), (missed, "none", "not filled")):
            axis.scatter(
                [time for time, _ in points],
                [price for _, price in points],
                s=90,
                marker=_MARKERS[side],
                facecolors=face,
                edgecolors=_COLOURS[side],
                label=f"{side}, {label}" if points else None,
                linewidths=1.2,
                zorder=3,
            )
    axis.ticklabel_format(axis="y", useOffset=False, style="plain")
    _time_axis(axis)


def _histogram(axis: "Axes", found: dict[Side, list[float]], edges: Sequence[float], title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    if not edges:
        _write_instead(axis, "nothing on record")
        return
    for side, values in found.items():
        label = f"{side} (n={len(values)})"
        axis.hist(values, edges, color=_COLOURS[side], alpha=0.25)
        axis.hist(values, edges, color=_COLOURS[side], histtype="step", linewidth=1.8, label=label)
    axis.set_ylabel("orders")
    axis.locator_params(axis="y", integer=True)
    _legend_below(axis)


def _market(event: FillEvent) -> VenueSymbol:
    return VenueSymbol(event.exchange, event.symbol)


def _markets(run: RunFiles) -> list[VenueSymbol]:
    """The markets with the most orders."""
    counts: dict[VenueSymbol, int] = {}
    for event in run.events:
        counts[_market(event)] = counts.get(_market(event), 0) + 1
    return sorted(sorted(counts, key=lambda market: -counts[market])[:_MOST_MARKETS])


def _timed(run: RunFiles) -> list[_TimedEvent]:
    pairs = zip(run.times, run.events, strict=True)
    return [(time / _SECONDS_A_DAY, event) for time, event in sorted(pairs, key=lambda pair: pair[0])]


def _picture(draw: Callable[[list["Axes"]], None], *, rows: int = 1, columns: int = 1, height: float = 3.8) -> bytes:
    """A PNG of the axes that `draw` fills. Raises PlotsMissingError.

    Imports the library only now: it takes a second, and nothing else here needs it.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsMissingError from error
    style: Any = {
        "date.converter": "concise",
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E3E7EC",
        "axes.axisbelow": True,
        "font.size": 10,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.5, height * rows), layout="constrained")
        draw(list(figure.subplots(rows, columns, squeeze=False).flat))
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=130)
    return written.getvalue()


def _bins(values: Sequence[float], count: int = 30) -> list[float]:
    """Edges of bins of equal width; empty without values."""
    if not values:
        return []
    low, high = min(values), max(values)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * number / count for number in range(count + 1)]


def _log_bins(values: Sequence[float]) -> list[float]:
    """Edges for a logarithmic axis; empty without values. Values must be above zero."""
    if not values:
        return []
    low, high = math.log10(min(values)), math.log10(max(values))
    return [10**exponent for exponent in _bins([low - 0.02, high + 0.02])]


def _legend_below(axis: "Axes") -> None:
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axis.legend(
            once.values(),
            once.keys(),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
            ncols=min(len(once), 5),
            frameon=False,
        )


def _write_instead(axis: "Axes", text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=_GREY)


def _log_axis(axis: "Axes") -> None:
    """A logarithmic axis with plain numbers: powers need math text, which is off as labels have names from files."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelbottom=False)


def _time_axis(axis: "Axes") -> None:
    axis.xaxis_date()
    axis.set_xlabel("UTC", loc="left")
