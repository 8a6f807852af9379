"""How long orders, cancels and their answers take."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

Leg = Literal["entry", "cancel", "response"]
LEGS: tuple[Leg, ...] = ("entry", "cancel", "response")
FEED = "feed"
DEFAULT_MS = 50.0
Draw = Callable[[str], int]
"""The next latency in microseconds; the argument is the exchange."""


class Latency:
    """Latencies in microseconds by exchange and leg. Cancels and amendments take the `cancel` latency."""

    def __init__(self, draws: Mapping[tuple[str, Leg], Draw]) -> None:
        """The exchange is empty for those that have none of their own."""
        self._draws = draws

    def draw(self, exchange: str, leg: Leg) -> int:
        found = self._draws.get((exchange, leg)) or self._draws["", leg]
        return found(exchange)


def parse_latency(text: str, seed: int, feed_us: Callable[[str], int]) -> Latency:
    """`50`, or `entry=80,cancel=60,response=feed,upbit:entry=file.txt`; milliseconds, 50 where nothing is given.

    `feed` is what the exchange's last event took from exchange to receipt, by the exchange's and the local clock; a
    file has one measured number of milliseconds a line, from which one is drawn each time. Raises ValueError, OSError.
    """
    draws: dict[tuple[str, Leg], Draw] = {("", leg): _fixed(DEFAULT_MS) for leg in LEGS}
    for part in filter(None, (part.strip() for part in text.split(","))):
        named, equals, value = part.rpartition("=")
        exchange, _, leg = named.rpartition(":")
        legs = [known for known in LEGS if known == leg] if equals else LEGS
        if not legs:
            raise ValueError(f"--latency {part}: write {', '.join(f'{known}=' for known in LEGS)} and milliseconds")
        for one in legs:
            # One stream of chance for each, so that one does not change the other.
            draws[exchange, one] = _draw_of(value, f"{seed}:{exchange}:{one}", feed_us)
    return Latency(draws)


def _draw_of(value: str, seed: str, feed_us: Callable[[str], int]) -> Draw:
    if value == FEED:
        return lambda exchange: max(feed_us(exchange), 0)
    try:
        return _fixed(float(value))
    except ValueError:
        pass
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"--latency {value}: give milliseconds, `{FEED}`, or a file with one number a line")
    return _sampled(_measured(path), seed)


def _fixed(milliseconds: float) -> Draw:
    microseconds = _microseconds(milliseconds)
    return lambda _: microseconds


def _sampled(measured: Sequence[int], seed: str) -> Draw:
    rng = random.Random(seed)  # noqa: S311 - not a secret
    return lambda _: rng.choice(measured)


def _measured(path: Path) -> list[int]:
    try:
        found = [_microseconds(float(line)) for line in path.read_text().split()]
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"--latency {path}: one number of milliseconds a line is expected: {error}") from None
    if not found:
        raise ValueError(f"--latency {path}: the file has no number")
    return found


def _microseconds(milliseconds: float) -> int:
    if not (math.isfinite(milliseconds) and 0 <= milliseconds <= 60_000):
        raise ValueError(f"--latency {milliseconds:g}: give milliseconds from 0 to 60000")
    return round(milliseconds * 1e3)
