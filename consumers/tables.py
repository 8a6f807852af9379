"""Tables for other tools: columns as a DataFrame of polars or pandas, which the extra `data` brings."""

from typing import Any

from bookbus._extras import advice

Columns = dict[str, list[Any]]
"""The columns of a table by name, all of one length."""

_NUMBERS = {
    *("bid", "bid_quantity", "ask", "ask_quantity", "spread_bps", "price", "quantity"),
    *("age", "update_age"),
}
_WHOLE_NUMBERS = {"received_us", "exchange_us", "update_id", "level", "trade_id", "seq"}


def polars_frame(columns: Columns) -> Any:
    """A `polars.DataFrame`. Raises ImportError, which names the extra, without polars."""
    try:
        import polars
    except ImportError as error:
        raise ImportError(advice("a table of polars", error)) from error
    kinds = {"number": polars.Float64, "whole": polars.Int64, "text": polars.String}
    return polars.DataFrame(columns, schema={name: kinds[_kind(name)] for name in columns})


def pandas_frame(columns: Columns) -> Any:
    """A `pandas.DataFrame`. Raises ImportError, which names the extra, without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(advice("a table of pandas", error)) from error
    kinds = {"number": "float64", "whole": "Int64", "text": "object"}
    return pandas.DataFrame({name: pandas.Series(values, dtype=kinds[_kind(name)]) for name, values in columns.items()})


def _kind(name: str) -> str:
    return "number" if name in _NUMBERS else "whole" if name in _WHOLE_NUMBERS else "text"
