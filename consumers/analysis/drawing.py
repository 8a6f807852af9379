"""How plots look, and the pictures that are made of them. Needs the `analysis` extra."""

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#5F6B7A"


class PlotsMissingError(ImportError):
    """The extra that draws is not installed."""

    def __init__(self) -> None:
        super().__init__("plots need the `analysis` extra: pip install 'bookbus[analysis]'")


def picture(draw: Callable[[list["Axes"]], None], *, rows: int = 1, columns: int = 1, height: float = 3.8) -> bytes:
    """A PNG of what `draw` puts on the axes.

    Imports the library only now: it takes a second, and nothing else here needs it.
    """
    try:
        import matplotlib as library
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
    with library.rc_context(style):
        figure = Figure(figsize=(9.5, height * rows), layout="constrained")
        draw(list(figure.subplots(rows, columns, squeeze=False).flat))
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=130)
    return written.getvalue()


def bins(values: Sequence[float], count: int = 30) -> list[float]:
    """Edges of bins of one width, none without values."""
    if not values:
        return []
    low, high = min(values), max(values)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * number / count for number in range(count + 1)]


def log_bins(values: Sequence[float]) -> list[float]:
    """Edges for a logarithmic axis, none without values. Values must be above zero."""
    if not values:
        return []
    low, high = math.log10(min(values)), math.log10(max(values))
    return [10**exponent for exponent in bins([low - 0.02, high + 0.02])]


def legend_below(axis: "Axes") -> None:
    """Each entry once, where it hides nothing."""
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


def say(axis: "Axes", text: str) -> None:
    """In place of a plot."""
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=GREY)


def log_axis(axis: "Axes") -> None:
    """With labels as they are read; powers would need the text markup that names from files must not reach."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelbottom=False)


def time_axis(axis: "Axes") -> None:
    """For days since 1970."""
    axis.xaxis_date()
    axis.set_xlabel("UTC", loc="left")
