"""Runs targets on corpus and mutations, within limits of time and memory, and makes what breaks them small."""

import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from tests.fuzz.mutation import mutated
from tests.fuzz.target import Target

TIME_LIMIT = 5.0
"""Seconds for one input. Generous: what hangs never ends, and a busy machine may pause us."""

MEMORY_LIMIT = 256 * 1024
"""Kilobytes by which the process may have grown in the end."""

_BATCH = 1000
_MINIMISE_TRIES = 3000


class HangError(Exception):
    """One input took longer than the limit."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An input after which a target did what it must not do."""

    target: str
    data: bytes
    reason: str


@dataclass
class Result:
    """One target's run."""

    target: str
    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    grown: int = 0
    """Kilobytes the process grew by."""
    crashes: list[Crash] = field(default_factory=list)


class Trial(NamedTuple):
    """What became of one input; `wrong` is empty unless the target did what it must not do."""

    accepted: bool
    wrong: str


class Trials:
    """Tries inputs one by one and interrupts one that takes too long; on the main thread only."""

    def __init__(self) -> None:
        self._begun = self._seen = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT, TIME_LIMIT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def run(self, target: Target, data: bytes) -> Trial:
        """One input."""
        self._begun += 1
        try:
            return Trial(target.accepts(data), "")
        except Exception as error:
            return Trial(False, _told(error))

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        """The same input as the last time is interrupted: it took one limit to two."""
        if self._seen == self._begun:
            raise HangError(f"took more than {TIME_LIMIT:g} s")
        self._seen = self._begun


def fuzz(target: Target, executions: int, seed: int, on_batch: Callable[[Result], None]) -> Result:
    """The corpus, then mutations of it. Of crashes in one place the first is kept."""
    rng = random.Random(f"{target.name}:{seed}")
    corpus, result, places, before = target.corpus, Result(target.name), set[str](), _memory()
    began = time.monotonic()
    with Trials() as trials:
        for number in range(executions):
            data = corpus[number] if number < len(corpus) else mutated(rng, corpus, target.words)
            started = time.perf_counter()
            accepted, wrong = trials.run(target, data)
            result.slowest = max(result.slowest, time.perf_counter() - started)
            result.accepted += accepted
            if wrong and _place(wrong) not in places:
                places.add(_place(wrong))
                result.crashes.append(Crash(target.name, _minimised(trials, target, data, _place(wrong)), wrong))
            result.executions += 1
            if result.executions % _BATCH == 0:
                result.seconds = time.monotonic() - began
                on_batch(result)
    result.seconds = time.monotonic() - began
    result.grown = max(0, _memory() - before)
    if result.grown > MEMORY_LIMIT:
        result.crashes.append(Crash(target.name, b"", f"the process grew by {result.grown // 1024} MB"))
    return result


def _minimised(trials: Trials, target: Target, data: bytes, place: str) -> bytes:
    """A shorter input that fails in the same place."""
    tries, size = 0, len(data) // 2
    while size and tries < _MINIMISE_TRIES:
        start = 0
        while start < len(data) and tries < _MINIMISE_TRIES:
            shorter, tries = data[:start] + data[start + size :], tries + 1
            if _place(trials.run(target, shorter).wrong) == place:
                data = shorter
            else:
                start += size
        size //= 2
    return data


def _told(error: Exception) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    where = "" if traceback is None else f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"
    return f"{type(error).__name__} at {where}: {str(error)[:200]}"


def _place(wrong: str) -> str:
    """Kind and place of a failure, without its text."""
    return wrong.partition(": ")[0]


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
