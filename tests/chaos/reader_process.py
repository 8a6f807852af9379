"""A reader in a process of its own, to be stopped and woken: `python -m tests.chaos.reader_process URL EXCHANGE`."""

import signal
import sys

from consumers.redis_provider import RedisMarketDataProvider

if __name__ == "__main__":
    with RedisMarketDataProvider(sys.argv[1], sys.argv[2]):
        signal.pause()
