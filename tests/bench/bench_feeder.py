"""From Binance diff text to Redis: our path beside the plain one (json, sorted dicts, msgpack, redis-py), in one run.

    python -m tests.bench.bench_feeder --frames 20000 --symbols 10

Ten level changes a side a frame, 1,000 levels a side, best 20 published. The socket is left out on both sides.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import cache

import msgpack
from redis.asyncio import Redis

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.publish_script import Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.feed import Feed
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.replay import NoSnapshots
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.instruments import InstrumentRegistry
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot

DEPTH = 20


class Market:
    """A made-up book of one symbol and the frames that change it, mostly near the touch."""

    def __init__(self, native: str, levels: int, seed: int) -> None:
        self.native = native
        self._random = random.Random(seed)
        self._id = 1_000_000 + seed
        self._levels = levels
        spots = range(1, 2 * levels)
        self._sides = {
            sign: {sign * spot: self._quantity() for spot in self._random.sample(spots, levels)} for sign in (-1, 1)
        }

    def snapshot(self) -> str:
        """The REST answer."""
        bids, asks = (
            [
                [self._price(spot), quantity]
                for spot, quantity in sorted(self._sides[sign].items(), key=lambda x: abs(x[0]))
            ]
            for sign in (-1, 1)
        )
        return json.dumps({"lastUpdateId": self._id, "bids": bids, "asks": asks})

    def frame(self, event_time_ms: int) -> str:
        """The next diff, as the combined stream sends it."""
        first, self._id = self._id + 1, self._id + self._random.randint(20, 40)
        data = {"e": "depthUpdate", "E": event_time_ms, "s": self.native, "U": first, "u": self._id}
        data |= {"b": self._changes(-1), "a": self._changes(1)}
        return json.dumps({"stream": f"{self.native.lower()}@depth@100ms", "data": data}, separators=(",", ":"))

    def _changes(self, sign: int) -> list[list[str]]:
        side = self._sides[sign]
        changes: dict[int, str] = {}
        while len(changes) < 10:
            spot = sign * min(2 * self._levels, 1 + int(self._random.expovariate(1 / 60)))
            if spot in side and self._random.random() < 0.35:
                del side[spot]
                changes[spot] = "0.00000000"
            else:
                changes[spot] = side[spot] = self._quantity()
        return [[self._price(spot), quantity] for spot, quantity in changes.items()]

    def _quantity(self) -> str:
        return f"{self._random.randint(1, 500_000_000) / 1e8:.8f}"

    @staticmethod
    def _price(spot: int) -> str:
        return f"{60_000 + spot / 100:.8f}"


Traffic = tuple[dict[str, str], list[bytes]]


def traffic(symbols: int, frames: int) -> Traffic:
    """REST answers by symbol, and the frames of all symbols in turn."""
    markets = [Market(f"S{number:03d}USDT", 1_000, number) for number in range(symbols)]
    snapshots = {market.native: market.snapshot() for market in markets}
    now = int(time.time() * 1000)
    return snapshots, [markets[number % symbols].frame(now + number).encode() for number in range(frames)]


async def bookbus(url: str, made: Traffic) -> None:
    """Protocol, feed, publish script, pipelined connection."""
    snapshots, frames = made
    publisher = Publisher(url, RedisNames("ours"), "bench")
    running = asyncio.create_task(publisher.run())
    venue, options = venue_of("binance"), FeedOptions(depth=DEPTH)

    unsent: list[Submission] = []

    def publish(book: OrderBookSnapshot, topic: Topic) -> None:
        unsent.append(Submission("new", topic, book))

    resolve = cache(InstrumentRegistry(venue.exchange, offline=True).resolve)
    books = BookSet(venue.protocol(list(snapshots), options), venue.snapshots)
    feed = Feed("binance", books, options, resolve, publish, print, NoSnapshots())
    feed.line_up(0)
    for native in snapshots:
        feed.receive(frames[list(snapshots).index(native)], 0, 0)
        feed.apply_snapshot(native, 1000, snapshots[native].encode(), time.time_ns() // 1000)
    for frame in frames[len(snapshots) :]:
        feed.receive(frame, 0, time.time_ns() // 1000)
        for submission in unsent:
            await publisher.submit_lossless(submission)
        unsent.clear()
    assert await publisher.drain(10), "Redis did not take everything"
    assert publisher.counters.accepted == feed.counters.updates, "books were lost"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def plain(url: str, made: Traffic) -> None:
    """What one writes first: json, dicts sorted for each update, msgpack, one redis-py round trip an update."""
    snapshots, frames = made
    redis: Redis = Redis.from_url(url)
    books = {}
    for native, text in snapshots.items():
        answer = json.loads(text)
        books[native] = [{float(p): float(q) for p, q in answer[side]} for side in ("bids", "asks")]
    for frame in frames:
        data = json.loads(frame)["data"]
        sides = books[data["s"]]
        for side, name in zip(sides, ("b", "a"), strict=True):
            for price, quantity in data[name]:
                if float(quantity):
                    side[float(price)] = float(quantity)
                else:
                    side.pop(float(price), None)
        bids = sorted(sides[0].items(), reverse=True)[:DEPTH]
        asks = sorted(sides[1].items())[:DEPTH]
        blob = msgpack.packb({"symbol": data["s"], "id": data["u"], "time": data["E"], "bids": bids, "asks": asks})
        name = f"plain:{data['s']}"
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(name, "book", blob)
            pipeline.publish(name, blob)
            await pipeline.execute()
    await redis.aclose()


async def _measure(path: Callable[[str, Traffic], Awaitable[None]], url: str, made: Traffic) -> tuple[float, float]:
    """Wall and CPU microseconds an update, on an empty server."""
    async with Redis.from_url(url) as redis:
        await redis.flushall()
    wall, cpu = time.perf_counter(), time.process_time()
    await path(url, made)
    count = len(made[1])
    return (time.perf_counter() - wall) / count * 1e6, (time.process_time() - cpu) / count * 1e6


async def _main(symbols: int, frames: int, repeat: int) -> None:
    made = traffic(symbols, frames)
    fewer = (made[0], made[1][: frames // 5])
    with LocalServer() as server:
        rows: dict[str, list[tuple[float, float]]] = {"bookbus": [], "plain": []}
        for _ in range(repeat):
            rows["bookbus"].append(await _measure(bookbus, server.url, made))
            rows["plain"].append(await _measure(plain, server.url, fewer))
    for name, measured in rows.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:8} {1e6 / wall:9,.0f} updates/s   {cpu:7.1f} µs CPU an update")
    ratios = [theirs[1] / ours[1] for ours, theirs in zip(rows["bookbus"], rows["plain"], strict=True)]
    print(f"CPU plain / bookbus: {statistics.median(ratios):.1f} (from {min(ratios):.1f} to {max(ratios):.1f})")


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    import uvloop

    uvloop.run(_main(arguments.symbols, arguments.frames, arguments.repeat))


if __name__ == "__main__":
    main()
