"""Whether the tests notice every small mistake in the synchronisation core and in the publish script.

Each mutant is the source with one operator, constant, condition or statement changed. It must fail a test, or
explained.toml must say why no test can tell it from the original. The sources themselves are left alone.

  python -m tests.mutation                          everything, half an hour or more on one core
  python -m tests.mutation --subject audit          one source
  python -m tests.mutation --subject sync --match _split
"""

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.mutation.mutant import Mutant
from tests.mutation.subjects import SUBJECTS, Subject
from tests.mutation.trial import attempt, preload

_TIMEOUT = 240.0
_INTERRUPTED = 130
_TOLD_EVERY = 20
_say = partial(print, flush=True)
EXPLAINED = Path(__file__).with_name("explained.toml")


def main() -> int:
    """Read the command line, run, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subject", default="all", help=f"comma-separated, of: {', '.join(SUBJECTS)}")
    parser.add_argument("--match", default="", help="only mutants whose name has this in it")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT, help="seconds for one mutant and its tests")
    arguments = parser.parse_args()
    names = list(SUBJECTS) if arguments.subject == "all" else arguments.subject.split(",")
    if unknown := [name for name in names if name not in SUBJECTS]:
        parser.error(f"no subject {', '.join(unknown)}: use any of {', '.join(SUBJECTS)}")
    preload()
    try:
        unexplained = sum(_run(name, SUBJECTS[name], arguments.match, arguments.timeout) for name in names)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 1 if unexplained else 0


def _run(name: str, subject: Subject, match: str, timeout: float) -> int:
    """Try each mutant on one stage of tests after the other until one notices; how many are left unexplained."""
    text = subject.source.read_text()
    explained = {mutant for entry in tomllib.loads(EXPLAINED.read_text()).get(name, []) for mutant in entry["mutants"]}
    if gone := explained - {mutant.name for mutant in subject.mutants(text)}:
        sys.exit("\n".join([f"{name}: {EXPLAINED.name} explains what is no mutant any more", *sorted(gone)]))
    for stage in subject.stages:
        if attempt(text, subject.install, stage, timeout) != "survived":
            sys.exit(f"{name}: {' '.join(stage)} fails without a mutant")
    mutants = [mutant for mutant in subject.mutants(text) if match in mutant.name]
    left = [mutant for mutant in mutants if mutant.name not in explained]
    counts = Counter[str]({"explained": len(mutants) - len(left)})
    for stage in subject.stages:
        left = _noticed_by_none(left, subject, stage, timeout, counts)
    for mutant in left:
        _say(f"  survived: {mutant.name}")
    figures = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("killed", "timed out", "explained"))
    _say(f"{name}: {len(mutants)} mutants, {figures}, {len(left)} survived")
    return len(left)


def _noticed_by_none(
    mutants: list[Mutant], subject: Subject, stage: Sequence[str], timeout: float, counts: Counter[str]
) -> list[Mutant]:
    survivors: list[Mutant] = []
    for done, mutant in enumerate(mutants):
        if done % _TOLD_EVERY == 0:
            _say(f"  {subject.source.name}, {Path(stage[0]).name}: {done} of {len(mutants)}, {len(survivors)} survive")
        outcome = attempt(mutant.text, subject.install, stage, timeout)
        if outcome == "survived":
            survivors.append(mutant)
        else:
            counts[outcome] += 1
    return survivors


if __name__ == "__main__":
    sys.exit(main())
