"""Two checkouts, one benchmark: the ratio of their CPU times, in alternating rounds.

    git worktree add ../before v0.1.0
    python -m tests.bench.compare ../before --rounds 20

Both run with this interpreter, one after the other, the first of each round in turn. Exit code 1 if a path is slower
than before: the lower bound of the ratio's 95 % interval is above --limit.
"""

import argparse
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parents[2]

BENCHES = {
    "bench_feeder": (("--repeat", "3", "--frames", "10000"), {"feeder": r"^bookbus .*?([\d.]+) µs CPU"}),
    "bench_publish": (
        (),
        {
            "publish, accepted": r"^accepted +([\d.]+)",
            "publish, confirmed": r"^confirmed +([\d.]+)",
            "script, accepted": r"^accepted +[\d.]+ +([\d.]+)",
        },
    ),
}
"""Arguments of each benchmark, and what it prints of each path: microseconds of CPU per update."""


def figures(checkout: Path, bench: str) -> dict[str, float]:
    """Run one benchmark in one checkout."""
    arguments, patterns = BENCHES[bench]
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{bench}", *arguments], cwd=checkout, capture_output=True, text=True
    )
    if ran.returncode:
        sys.exit(f"{bench} in {checkout} failed:\n{ran.stderr}")
    found = {name: re.search(pattern, ran.stdout, re.MULTILINE) for name, pattern in patterns.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios and its 95 % interval, from Student's distribution of their logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    middle, half = statistics.fmean(logs), 2.1 * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle - half), math.exp(middle), math.exp(middle + half)


def main() -> int:
    """Read the command line, run, print a line a path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--limit", type=float, default=1.02)
    arguments = parser.parse_args()
    slower = False
    for bench in BENCHES:
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        for number in range(arguments.rounds):
            order = (HERE, arguments.before) if number % 2 else (arguments.before, HERE)
            measured = {checkout: figures(checkout, bench) for checkout in order}
            rounds.append((measured[HERE], measured[arguments.before]))
        for path in BENCHES[bench][1]:
            low, middle, high = interval([after[path] / before[path] for after, before in rounds])
            median_before = statistics.median(before[path] for _, before in rounds)
            print(
                f"{path:20} after / before {middle:.3f} [{low:.3f}, {high:.3f}]  "
                f"before {median_before:.1f} µs, {arguments.rounds} rounds"
            )
            slower |= low > arguments.limit
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
