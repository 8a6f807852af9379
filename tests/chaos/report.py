"""Results of faults, as rows of a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COLUMNS = (
    "scenario",
    "fault",
    "times",
    "noticed s",
    "recovered s",
    "readers saw",
    "compared",
    "wrong",
    "oldest s",
    "missed",
    "weight",
    "verdict",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault, injected once. Times in seconds.

    `noticed`: from the beginning of the fault until a reader saw it; None if none did. `recovered`: from its end until
    every book was live and stayed so; None if that did not happen. `oldest`: the highest true age of a live book.
    """

    fault: str
    noticed: float | None
    recovered: float | None
    saw: frozenset[str]
    counts: dict[str, int]
    oldest: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario. `failures` are those of no single fault; `log` is the feeders' log."""

    scenario: str
    outcomes: list[Outcome]
    failures: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def all_failures(self) -> list[str]:
        """All failures, with scenario and fault."""
        of_faults = [f"{outcome.fault}: {failure}" for outcome in self.outcomes for failure in outcome.failures]
        return [f"{self.scenario}: {failure}" for failure in [*of_faults, *self.failures]]

    def count(self, name: str) -> int:
        """Sum over all faults."""
        return sum(outcome.counts.get(name, 0) for outcome in self.outcomes)


def table(results: Iterable[Result]) -> str:
    """One row per fault, with the worst of its repetitions."""
    rows = [COLUMNS, *(_row(result.scenario, plays) for result in results for plays in _by_fault(result.outcomes))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _by_fault(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    plays: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        plays.setdefault(outcome.fault, []).append(outcome)
    return list(plays.values())


def _row(scenario: str, plays: list[Outcome]) -> tuple[str, ...]:
    def total(name: str) -> str:
        return str(sum(play.counts.get(name, 0) for play in plays))

    saw = sorted(frozenset().union(*(play.saw for play in plays)))
    failed = sum(bool(play.failures) for play in plays)
    return (
        scenario,
        plays[0].fault,
        str(len(plays)),
        _worst(play.noticed for play in plays),
        _worst(play.recovered for play in plays),
        ", ".join(saw) or "nothing",
        total("compared"),
        total("wrong"),
        _worst(play.oldest for play in plays),
        total("missed"),
        total("weight"),
        f"FAILED {failed}" if failed else "ok",
    )


def _worst(seconds: Iterable[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{max(known):.2f}" if known else "–"
