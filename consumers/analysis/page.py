"""HTML pages that need nothing but themselves."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text; the first `text_columns` stand left. A cell that is an outcome has its colour."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


def number(value: float | None, digits: int = 4) -> str:
    """For people; `–` where not known."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(sections)}</body></html>\n'


def banner(title: str, verdict: str, outcome: str, figures: Iterable[tuple[str, str]]) -> str:
    """What matters most."""
    shown = "".join(f"<span>{html.escape(name)}<b>{html.escape(value)}</b></span>" for name, value in figures)
    return (
        f'<section class="banner {outcome}"><h1>{html.escape(title)}</h1>'
        f'<strong class="{outcome}">{html.escape(verdict)}</strong><div class="figures">{shown}</div></section>'
    )


def section(title: str, *parts: str, note: str = "") -> str:
    """One part of the page."""
    remark = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}{remark}</section>"


def picture(png: bytes, description: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def table(content: Table) -> str:
    """A table inside the page."""
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


def write_page(directory: Path, name: str, text: str) -> Path:
    """The file that was written. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def _class(place: int, content: Table, cell: str) -> str:
    names = ["text"] if place < content.text_columns else []
    if cell in ("passed", "failed", "unknown"):
        names.append(cell)
    return f' class="{" ".join(names)}"' if names else ""
