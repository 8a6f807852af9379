"""`python -m feeders`; on SIGUSR1 it writes how many asyncio tasks it has to the file of `BOOKBUS_SOAK_TASKS`."""

import asyncio
import os
import signal
from pathlib import Path
from types import FrameType

from bookbus.feeders.__main__ import main


def _tell(number: int, frame: FrameType | None) -> None:
    Path(os.environ["BOOKBUS_SOAK_TASKS"]).write_text(str(len(asyncio.all_tasks())))


if __name__ == "__main__":
    # Before the loop runs there is nothing to count, and by default the signal would end the process.
    signal.signal(signal.SIGUSR1, _tell)
    main()
