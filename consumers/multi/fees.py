"""What a market order costs on each exchange, where the account's own fee is not given."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

TAKER_FEES_BPS: Mapping[str, float] = MappingProxyType({"binance": 10.0, "upbit": 5.0, "bybit": 10.0})
"""Spot taker fee without any discount, in hundredths of a percent of the traded value; on Upbit of its KRW markets."""


def taker_fees(exchanges: Iterable[str], given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Fee of each exchange: as given, else the usual one. Raises ValueError where there is neither."""
    exchanges, given = list(exchanges), given or {}
    if strangers := sorted(set(given) - set(exchanges)):
        raise ValueError(f"a fee is given for {', '.join(strangers)}, which is not among {', '.join(exchanges)}")
    fees = {**TAKER_FEES_BPS, **given}
    if unknown := [exchange for exchange in exchanges if exchange not in fees]:
        raise ValueError(f"the taker fee of {', '.join(unknown)} is not known; give it in bps")
    if wrong := [f"{exchange}={fees[exchange]}" for exchange in exchanges if not -1e4 < fees[exchange] < 1e4]:
        raise ValueError(f"no fee in bps: {', '.join(wrong)}")
    return {exchange: fees[exchange] for exchange in exchanges}
