"""Opportunities as a table for a person."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bookbus.consumers.multi.arbitrage import ASSUMPTION, Opportunity


def table_of(found: Sequence[Opportunity], quote: str) -> RenderableType:
    """One row a pair of exchanges; below it what is to be said of them, each thing once."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=f"arbitrage in {quote}")
    for heading in ("pair", "buy → sell"):
        table.add_column(heading, no_wrap=True)
    for heading in ("gross bps", "net bps", "size", "profit", "ages, s"):
        table.add_column(heading, justify="right")
    table.add_column("act")
    for one in found:
        table.add_row(
            one.symbol,
            f"{one.buy} → {one.sell}",
            _figure(one.gross_bps, "+.1f"),
            _figure(one.net_bps, "+.1f"),
            _figure(one.size or None, ".6g"),
            _figure(one.profit or None, ",.2f"),
            " ".join(_figure(age, ".1f") for age in (one.buy_age, one.sell_age, one.fx_age)),
            Text("yes", style="bold green") if one.actionable else Text("no", style="dim"),
        )
    remarks = [Text(remark, style="yellow") for remark in _remarks(found, quote)]
    ages = "ages: of the book to buy from, of the book to sell to, of the exchange rate"
    return Group(table, *remarks, Text(f"{ages}\n{ASSUMPTION}", style="dim"))


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _remarks(found: Sequence[Opportunity], quote: str) -> list[str]:
    """What the figures do not tell, with the pairs it is true of."""
    concerned: dict[str, list[str]] = {}
    for one in found:
        if remark := _remark(one, quote):
            concerned.setdefault(remark, []).append(f"{one.symbol} {one.buy} → {one.sell}")
    return [f"{', '.join(pairs)}: {remark}" for remark, pairs in concerned.items()]


def _remark(one: Opportunity, quote: str) -> str:
    if one.net_bps is None:
        return one.reason
    if one.actionable and one.fx_size is not None and one.cost > one.fx_size:
        return f"the best level of the exchange rate is good for {one.fx_size:,.0f} {quote} only"
    return ""
