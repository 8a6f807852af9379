"""While a feeder may not write, nothing is handed over, and confirmations do not wait."""

from bookbus.feeders.bus.outbox import Outbox, PublisherCounters
from bookbus.feeders.bus.publish_script import BookKey, Submission
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort
from bookbus.schemas.trade import Trade
from tests.support.builders import book

SERVER: HostPort = ("one", 1)


class RecordingWriter:
    """Takes everything."""

    must_load = False
    has_room = True
    idle = True

    def __init__(self) -> None:
        self.written: list[Submission] = []

    def write(self, books: list[tuple[BookKey, Submission]], trades: list[Trade]) -> None:
        self.written += [submission for _, submission in books]

    def requeue_moved(self, moved: set[str]) -> None:
        pass

    def discard(self) -> None:
        pass


def test_nothing_is_written_until_it_may_and_confirmations_are_dropped() -> None:
    allowed, writer = [False], RecordingWriter()
    outbox = Outbox(
        RedisNames(),
        "A",
        PublisherCounters(),
        {SERVER: writer},
        lambda _: SERVER,
        sharded=False,
        may_write=lambda: allowed[0],
    )
    changed = Submission("new", "book", book("BTC-USDT"))
    outbox.submit(changed)
    outbox.submit(Submission("again", "book", book("ETH-USDT")))

    outbox.flush()
    assert writer.written == []

    allowed[0] = True
    outbox.flush()
    assert writer.written == [changed]
