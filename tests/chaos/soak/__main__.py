"""Soak run: simulated exchanges, random faults and ten readers. No book may be wrong and no resource may grow.

Every live book of a reader is compared with the exchange's own. A book may become suspect only while a fault affects
it. Memory, open files, threads and tasks of feeders and readers are sampled every ten seconds. The results are printed
at the end; the exit code is 0 if the run passed.

  python -m tests.chaos.soak --minutes 60
  python -m tests.chaos.soak --minutes 2 --seed 7 --directory logs/soak
"""

import argparse
import asyncio
import signal
import sys
from functools import partial
from pathlib import Path

from bookbus.feeders.redis_server import LocalRedisError
from bookbus.feeders.simulator.process import SimulatorError
from tests.chaos.soak.run import Soak, SoakError
from tests.chaos.soak.verdict import failures, table

_INTERRUPTED = 130


def main() -> int:
    """Run with the options of the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="duration; memory is checked from 10 on")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order of faults")
    parser.add_argument("--symbols", type=int, default=20, help="symbols of each exchange")
    parser.add_argument("--readers", type=int, default=10, help="readers, half of them for each exchange")
    parser.add_argument("--directory", type=Path, default=Path("logs/soak"), help="directory for the logs")
    arguments = parser.parse_args()
    say = partial(print, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also in a background job, which ignores SIGINT: no process may be left behind.
        signal.signal(number, signal.default_int_handler)
    soak = Soak(arguments.directory, arguments.seed, arguments.symbols, arguments.readers, say)
    try:
        outcome = asyncio.run(soak.run(arguments.minutes * 60))
    except (SoakError, SimulatorError, LocalRedisError) as error:
        say(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    for line in table(outcome):
        say(line)
    failed = failures(outcome)
    for line in failed:
        say(f"FAILED {line}")
    say("failed" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
