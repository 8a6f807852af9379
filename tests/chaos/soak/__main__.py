"""Both exchanges simulated, random faults, ten readers, for as long as asked: nothing may be wrong, nothing may grow.

Every live book a reader gets is compared with the exchange's truth. A book may become suspect only while a fault
touches it. Memory, open files, threads and tasks of feeders and readers are looked at every ten seconds. What was
seen is told at the end; the exit code is 0 only if all of it is as it should be.

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
    """Read the command line, run, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; memory is judged from 10 on")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another order of faults")
    parser.add_argument("--symbols", type=int, default=20, help="of each exchange")
    parser.add_argument("--readers", type=int, default=10, help="half of them for each exchange")
    parser.add_argument("--directory", type=Path, default=Path("logs/soak"), help="for the logs of all processes")
    arguments = parser.parse_args()
    say = partial(print, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also in the background, where Ctrl-C is ignored: no process may be left behind.
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
