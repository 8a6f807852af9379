"""Markets of the local exchange: names, price and size grids, where the price starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from bookbus.schemas.instruments import EXCHANGES, Exchange, guess_instrument

DECIMALS = 8
"""Digits after the point in every number on the wire."""

_MAJORS = {
    # base: (price in dollars, decimals of the tick, decimals of the step)
    "BTC": (61837.63, 2, 5),
    "ETH": (2683.80, 2, 4),
    "BNB": (571.20, 2, 3),
    "SOL": (152.47, 2, 3),
    "XRP": (0.6031, 4, 0),
    "ADA": (0.3412, 4, 1),
    "DOGE": (0.10412, 5, 0),
    "TRX": (0.1297, 4, 1),
    "LTC": (62.31, 2, 3),
    "LINK": (10.21, 3, 2),
    "DOT": (4.562, 3, 2),
    "AVAX": (22.84, 3, 2),
}
_DOLLARS = dict.fromkeys(("USDT", "USDC", "FDUSD"), (1.0, 4, 1))
"""Worth a dollar, so that their markets are the exchange rates between the quotes of all others."""
_QUOTE_PRICES = {"BTC": 61837.63, "ETH": 2683.80, "BNB": 571.20, "EUR": 1.09, "TRY": 0.03, "KRW": 0.00073}
_MINIMUM_TICKS = 60_000
"""A price worth fewer ticks has no room for the depth of the books below it: such a market gets a finer tick."""


@dataclass(frozen=True, slots=True)
class SimulatedInstrument:
    """One market. Inside, prices and quantities are whole numbers of ticks and steps; texts only leave."""

    native: str
    base: str
    quote: str
    tick_decimals: int
    step_decimals: int
    start_ticks: int
    typical_steps: int
    """Median size of a level."""

    def price(self, ticks: int) -> float:
        return ticks / int(10**self.tick_decimals)  # int / int rounds like float() of the text

    def quantity(self, steps: int) -> float:
        return steps / int(10**self.step_decimals)

    def price_text(self, ticks: int) -> str:
        return decimal_text(ticks, self.tick_decimals)

    def quantity_text(self, steps: int) -> str:
        return decimal_text(steps, self.step_decimals)


@lru_cache(maxsize=100_000)
def decimal_text(units: int, decimals: int) -> str:
    """`units` of 10^-decimals with all eight digits after the point."""
    whole, part = divmod(units * 10 ** (DECIMALS - decimals), 10**DECIMALS)
    return f"{whole}.{part:0{DECIMALS}d}"


def instruments(symbols: Sequence[str] | int, exchange: Exchange = EXCHANGES["binance"]) -> list[SimulatedInstrument]:
    """The named markets, or as many as asked for, the big ones first."""
    names = default_names(symbols, exchange) if isinstance(symbols, int) else symbols
    return [_instrument(exchange, name) for name in dict.fromkeys(names)]


def default_names(count: int, exchange: Exchange) -> list[str]:
    """`count` native names in the exchange's home quote."""
    made_up = (f"{_letters(number)}Z" for number in range(count))
    bases = [*_MAJORS, *made_up][:count]
    return [exchange.native(base, exchange.home_quote) for base in bases]


def _letters(number: int) -> str:
    high, low = divmod(number, 26 * 26)
    return chr(65 + high % 26) + chr(65 + low // 26) + chr(65 + low % 26)


def _instrument(exchange: Exchange, name: str) -> SimulatedInstrument:
    guessed = guess_instrument(exchange, name)
    # One market looks the same in every run: the seed moves its prices, not its grid.
    dice = Random(guessed.native)  # noqa: S311
    known = _MAJORS | _DOLLARS
    dollars, ticks, steps = known.get(guessed.base, (round(dice.lognormvariate(0, 2.5), 6), 2, 2))
    price = dollars / _QUOTE_PRICES.get(guessed.quote, 1.0)
    while price * 10**ticks < _MINIMUM_TICKS and ticks < DECIMALS:
        ticks += 1
    if guessed.base not in known:
        steps = max(0, min(5, ticks - 4))
    typical_steps = max(1, round(dice.uniform(300, 1500) / dollars * 10**steps))
    start = max(_MINIMUM_TICKS, round(price * 10**ticks))
    return SimulatedInstrument(guessed.native, guessed.base, guessed.quote, ticks, steps, start, typical_steps)
