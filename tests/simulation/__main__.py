"""Runs seeds: `python -m tests.simulation --seeds 10000 [--first N] [--jobs 2] [--faults failover,clock-server]`.

One seed (`--seeds 1 --first N`) also prints its trace. Ends with 1 if a seed failed.
"""

import argparse
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.faults import HELD, KINDS
from tests.simulation.simulation import Result, simulate

_CHUNK = 20
_PROGRESS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--faults", default=",".join(HELD), help=f"kinds, or 'all', of: {', '.join(KINDS)}")
    options = parser.parse_args()
    kinds = list(KINDS) if options.faults == "all" else options.faults.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    if options.seeds == 1:
        result = simulate(options.first, kinds)
        print("\n".join(result.trace))
        return _report(result)
    began = shown = time.monotonic()
    failed, done, readings, live = Counter[str](), 0, 0, 0
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for result in pool.map(simulate, seeds, [kinds] * len(seeds), chunksize=_CHUNK):
            done, readings, live = done + 1, readings + result.readings, live + result.live
            if _report(result):
                failed[result.violations[0].split(":")[0].split(" ", 1)[1]] += 1
            if time.monotonic() - shown > _PROGRESS:
                shown = time.monotonic()
                print(f"{done} seeds, {failed.total()} failed, {(shown - began) / done:.3f} s a seed", flush=True)
    print(
        f"{done} seeds in {time.monotonic() - began:.0f} s, {readings} readings, {live} of them live; "
        f"{failed.total()} seeds failed {dict(failed)}"
    )
    return int(bool(failed))


def _report(result: Result) -> int:
    if not result.violations:
        return 0
    print(f"seed {result.seed} failed {len(result.violations)} times, first {result.violations[0]}")
    print(f"    faults: {', '.join(result.faults)}", flush=True)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
