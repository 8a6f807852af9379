"""Hostile bytes for everything that reads bytes from outside.

Each target gets its corpus, then mutations of it. It may return or raise the one error it is documented to raise;
anything else, and more than five seconds, is a failure, whose input is made small and written to --findings.

  python -m tests.fuzz --executions 100000
  python -m tests.fuzz --target wire,url --executions 1000000 --seed 7
"""

import argparse
import hashlib
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.fuzz.engine import Crash, Result, fuzz
from tests.fuzz.targets import TARGETS

_INTERVAL = 2.0
_INTERRUPTED = 130


def main() -> int:
    """Read the command line, run, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="all", help=f"comma-separated, of: {', '.join(TARGETS)}")
    parser.add_argument("--executions", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other mutations")
    parser.add_argument("--findings", type=Path, default=Path("logs/fuzz"), help="where failing inputs are written")
    arguments = parser.parse_args()
    names = list(TARGETS) if arguments.target == "all" else arguments.target.split(",")
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}: use any of {', '.join(TARGETS)}")
    say = partial(print, flush=True)
    logging.disable()  # what goes wrong is expected here
    results = []
    try:
        for name in names:
            results.append(fuzz(TARGETS[name], arguments.executions, arguments.seed, _progress(say)))
            _tell(say, results[-1], arguments.findings)
    except KeyboardInterrupt:
        return _INTERRUPTED
    crashes = sum(len(result.crashes) for result in results)
    say(f"{sum(result.executions for result in results):,} executions of {len(results)} targets, {crashes} failures")
    return 1 if crashes else 0


def _progress(say: Callable[[str], None]) -> Callable[[Result], None]:
    told = time.monotonic()

    def on_batch(result: Result) -> None:
        nonlocal told
        if time.monotonic() - told > _INTERVAL:
            told = time.monotonic()
            say(f"  {result.target}: {result.executions:,} so far")

    return on_batch if sys.stdout.isatty() else lambda _: None


def _tell(say: Callable[[str], None], result: Result, findings: Path) -> None:
    rate = result.executions / max(result.seconds, 1e-9)
    say(
        f"{result.target:16} {result.executions:>10,} executions, {result.accepted / result.executions:4.0%} accepted, "
        f"{rate:,.0f} a second, slowest {result.slowest * 1e3:.0f} ms, grew {result.grown / 1024:.1f} MB, "
        f"{len(result.crashes)} failures"
    )
    for crash in result.crashes:
        say(f"  {_kept(crash, findings)}: {crash.reason}")


def _kept(crash: Crash, findings: Path) -> Path:
    path = findings / crash.target / hashlib.sha256(crash.data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(crash.data)
    return path


if __name__ == "__main__":
    sys.exit(main())
