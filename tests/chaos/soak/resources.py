"""Samples of the resources of a process (Linux), and whether they grow."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = 60.0
"""Seconds of samples that are averaged first: neighbouring samples are correlated and would reduce the error."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment; `tasks` is None if unknown."""

    at: float
    memory_mb: float
    descriptors: int
    sockets: int
    threads: int
    tasks: int | None = None


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per hour and its standard error."""

    per_hour: float
    error: float


def sample(pid: int, at: float, tasks: int | None = None) -> Sample:
    """A sample of a process. Raises OSError if it has ended."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    links = [_link(entry) for entry in (folder / "fd").iterdir()]
    return Sample(
        at=at,
        memory_mb=pages * _PAGE / 1e6,
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=sum(1 for _ in (folder / "task").iterdir()),
        tasks=tasks,
    )


def processor_seconds(pid: int) -> float:
    """CPU time of a process. Raises OSError if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_slope(samples: Sequence[Sample], after: float) -> Slope | None:
    """Slope of the samples taken after `after` seconds; None for fewer than five blocks."""
    blocks: dict[int, list[Sample]] = {}
    for each in samples:
        if each.at >= after:
            blocks.setdefault(int((each.at - after) // BLOCK), []).append(each)
    hours = [statistics.fmean(each.at for each in block) / 3600 for block in blocks.values()]
    memory = [statistics.fmean(each.memory_mb for each in block) for block in blocks.values()]
    if len(hours) < 5:
        return None
    slope, intercept = statistics.linear_regression(hours, memory)
    rest = sum((mb - slope * hour - intercept) ** 2 for hour, mb in zip(hours, memory, strict=True))
    spread = sum((hour - statistics.fmean(hours)) ** 2 for hour in hours)
    return Slope(slope, (rest / (len(hours) - 2) / spread) ** 0.5)


def usual(counts: Sequence[int]) -> tuple[int, int] | None:
    """Medians of the first and of the last quarter: a leak raises the second, a fluctuation does not.

    None for fewer than eight counts.
    """
    quarter = len(counts) // 4
    if quarter < 2:
        return None
    return statistics.median_high(counts[:quarter]), statistics.median_low(counts[-quarter:])


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""  # Closed since it was listed.
