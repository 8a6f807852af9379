"""`python -m feeders` that writes its number of asyncio tasks to the file `BOOKBUS_SOAK_TASKS` on SIGUSR1."""

import asyncio
import os
import signal
from pathlib import Path
from types import FrameType

from bookbus.feeders.__main__ import main


def _write_task_count(number: int, frame: FrameType | None) -> None:
    Path(os.environ["BOOKBUS_SOAK_TASKS"]).write_text(str(len(asyncio.all_tasks())))


if __name__ == "__main__":
    # Installed before the loop runs: by default the signal would end the process.
    signal.signal(signal.SIGUSR1, _write_task_count)
    main()
