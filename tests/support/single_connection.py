"""One connection to an exchange without a feeder around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.exchanges.adapter import FeedAdapter
from bookbus.feeders.feed import Feed
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.instruments import InstrumentRegistry
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.fake_venue import FakeSnapshots

Connected = tuple[FeedAdapter, list[OrderBookSnapshot]]


@asynccontextmanager
async def single_connection(
    simulator: Any, exchange: str, *symbols: str, timeout: float = 10.0
) -> AsyncIterator[Connected]:
    """The connection and the books it brings; that it ends by itself fails the test."""
    books: list[OrderBookSnapshot] = []
    venue = venue_of(exchange)
    resolve, options = InstrumentRegistry(venue.exchange, offline=True).resolve, FeedOptions(venue.modes[0])
    feed = Feed(
        exchange=exchange,
        books=BookSet(venue.protocol([resolve(symbol).native for symbol in symbols], options), venue.snapshots),
        options=options,
        instrument_of=resolve,
        on_snapshot=lambda book, _: books.append(book),
        on_trade=print,
        snapshots=FakeSnapshots(),
    )
    url = venue.stream_url(simulator.ws_url)
    line = FeedAdapter(venue, feed, url, StallDetector(lambda gap: line.discard(gap)), timeout=timeout)
    await line.connect()
    await line.subscribe()
    receiving = asyncio.create_task(line.receive_loop())
    try:
        yield line, books
        assert not receiving.done()
    finally:
        receiving.cancel()
        with suppress(asyncio.CancelledError):
            await receiving
