"""A reader in its own process, to be stopped and continued: `python -m tests.chaos.reader_process URL EXCHANGE`."""

import contextlib
import signal
import sys

from bookbus.consumers.redis_provider import RedisMarketDataProvider

if __name__ == "__main__":
    # Ctrl-C at the terminal ends the scenario, which then ends its reader.
    with contextlib.suppress(KeyboardInterrupt), RedisMarketDataProvider(sys.argv[1], sys.argv[2]):
        signal.pause()
