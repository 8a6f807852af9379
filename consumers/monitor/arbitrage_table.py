"""Opportunities as a table for a person."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from consumers.opportunity import ASSUMPTION, Opportunity


def table_of(found: Sequence[Opportunity], quote: str) -> Table:
    """One row a pair of exchanges."""
    table = Table(title=f"arbitrage in {quote}", caption=ASSUMPTION, caption_justify="left", title_justify="left")
    table.add_column("pair", no_wrap=True)
    table.add_column("buy → sell", no_wrap=True)
    for heading in ("gross bps", "net bps", "size", "profit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("age s: buy sell fx", no_wrap=True)
    table.add_column("actionable", overflow="fold")
    for one in found:
        table.add_row(
            one.symbol,
            f"{one.buy} → {one.sell}",
            _figure(one.gross_bps, "+.1f"),
            _figure(one.net_bps, "+.1f"),
            _figure(one.size or None, ".6g"),
            _figure(one.profit or None, ",.2f"),
            " ".join(_figure(age, "4.1f") for age in (one.buy_age, one.sell_age, one.fx_age)),
            _verdict(one, quote),
            style="bold" if one.actionable else "",
        )
    return table


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _verdict(one: Opportunity, quote: str) -> Text:
    if not one.actionable:
        return Text(one.reason, style="yellow" if one.net_bps is None else "dim")
    if one.fx_size is not None and one.cost > one.fx_size:
        return Text(f"yes, but the best FX level is good for {one.fx_size:,.0f} {quote} only", style="green")
    return Text("yes", style="green")
