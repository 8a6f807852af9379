"""One small change to a source text."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LARGE = 1_000


class Mutant(NamedTuple):
    """The whole changed text, and a name that stays the same while the changed line does."""

    name: str
    text: str


def other_numbers(value: float) -> tuple[float, ...]:
    """One more and one less; of what is large enough to be a limit of some size, twice and half as much."""
    if value > _LARGE:
        return (value * 2, value // 2)
    return (value + 1, value - 1) if value else (value + 1,)


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """The second of a name is called so."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        seen[mutant.name] += 1
        yield mutant if seen[mutant.name] == 1 else Mutant(f"{mutant.name} #{seen[mutant.name]}", mutant.text)
