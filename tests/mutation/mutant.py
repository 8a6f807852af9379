"""One small change to a source text."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """The whole changed text, and a name that stays the same while the changed line does."""

    name: str
    text: str


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """The second of a name is called so."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        seen[mutant.name] += 1
        yield mutant if seen[mutant.name] == 1 else Mutant(f"{mutant.name} #{seen[mutant.name]}", mutant.text)
