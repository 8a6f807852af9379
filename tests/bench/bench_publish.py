"""What publishing costs: client CPU per update beside a redis-py pipeline, server CPU per kind of answer.

Run it by hand: `python tests/bench/bench_publish.py [--server PATH]`. It starts a server of its own.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
from msgspec.structs import replace

from bookbus.feeders.bus.publish_script import BookKey, Submission, SubmissionKind, script_sha, script_text
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.wire import encode_body

NAMES = RedisNames()
SYMBOLS = [f"S{number:03}-USDT" for number in range(100)]
ROUNDS = 200
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU per update."""

    client: float
    server: float


def books(update_id: int) -> list[OrderBookSnapshot]:
    """One 20-level book a symbol."""
    bids = tuple((100_000.12 - level / 100, 1.2345 + level) for level in range(20))
    asks = tuple((100_000.13 + level / 100, 1.2345 + level) for level in range(20))
    first = OrderBookSnapshot(
        exchange="binance",
        symbol="",
        native="",
        state="live",
        update_id=update_id,
        exchange_us=1_700_000_000_000_000,
        received_us=1_700_000_000_000_000,
        depth=20,
        bids=bids,
        asks=asks,
    )
    return [replace(first, symbol=symbol, native=symbol.replace("-", "")) for symbol in SYMBOLS]


async def by_publisher(
    server: LocalServer, feeder: str, update_ids: Iterator[int], kind: SubmissionKind = "new"
) -> Cost:
    """All symbols in one turn of the loop, answered before the next turn."""
    publisher = Publisher(server.url, NAMES, feeder)
    running = asyncio.ensure_future(publisher.run())
    rounds = [[Submission(kind, "book", book) for book in books(next(update_ids))] for _ in range(ROUNDS)]
    for submission in rounds[0]:
        publisher.submit(submission)
    await publisher.drain(5)

    async def work() -> None:
        for submissions in rounds:
            for submission in submissions:
                publisher.submit(submission)
            await publisher.drain(5)

    cost = await measure(server, work)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return cost


async def by_pipeline(server: LocalServer, update_ids: Iterator[int]) -> Cost:
    """The same script and bodies by redis-py."""
    rounds = [books(next(update_ids)) for _ in range(ROUNDS)]
    async with redis.asyncio.Redis.from_url(server.url) as client:
        sha = await client.script_load(script_text().decode())

        async def work() -> None:
            for snapshots in rounds:
                pipeline = client.pipeline(transaction=False)
                for book in snapshots:
                    now = time.time_ns() // 1000
                    (bid, bid_quantity), (ask, ask_quantity) = book.bids[0], book.asks[0]
                    name = NAMES.book(book.exchange, book.symbol)
                    arguments = ("new", "pipeline", book.update_id, book.state, now)
                    body = encode_body(book, "pipeline", now)
                    pipeline.evalsha(sha, 1, name, *arguments, bid, bid_quantity, ask, ask_quantity, body)
                await pipeline.execute()

        return await measure(server, work)


async def measure(server: LocalServer, work: Callable[[], object]) -> Cost:
    """CPU of this process and of the server while `work` is done."""
    server_before, client_before = server_cpu(server.pid), time.process_time()
    await work()  # type: ignore[misc]
    client, spent = time.process_time() - client_before, server_cpu(server.pid) - server_before
    updates = ROUNDS * len(SYMBOLS)
    return Cost(client / updates * 1e6, spent / updates * 1e6)


def packing() -> tuple[float, float]:
    """Microseconds to encode one book, and to make its whole command."""
    (book, *_) = books(1)
    key, submission = BookKey("md:book:binance:S000-USDT", "feeder", script_sha()), Submission("new", "book", book)

    def timed(call: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(REPEATS):
            started = time.process_time()
            for _ in range(20_000):
                call()
            best = min(best, time.process_time() - started)
        return best / 20_000 * 1e6

    now = 1_700_000_000_000_000
    return timed(lambda: encode_body(book, "feeder", now)), timed(lambda: key.pack(submission, now))


def server_cpu(pid: int) -> float:
    """Seconds of CPU that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def main(binary: Path | None) -> None:
    say(f"{len(SYMBOLS)} symbols a write, 20 levels a side, {ROUNDS * len(SYMBOLS)} updates, best of {REPEATS}")
    rising = iter(range(2, 1_000_000))
    constant = iter([10**9] * 1_000_000)
    with LocalServer(binary=binary) as server:
        rows: dict[str, Cost] = {}
        for _ in range(REPEATS):
            for name, cost in (
                ("accepted", await by_publisher(server, "A", rising)),
                ("accepted, redis-py pipeline", await by_pipeline(server, rising)),
            ):
                keep_best(rows, name, cost)
        await by_publisher(server, "A", constant)
        for _ in range(REPEATS):
            keep_best(rows, "confirmed", await by_publisher(server, "A", constant, "again"))
            keep_best(rows, "refused", await by_publisher(server, "A", iter([5] * ROUNDS)))
    say(f"{'us CPU per update':<32}{'client':>8}{'server':>8}")
    for name, cost in rows.items():
        say(f"{name:<32}{cost.client:>8.1f}{cost.server:>8.1f}")
    encode, pack = packing()
    say(f"of which: encode {encode:.1f}, pack the command {pack - encode:.1f}")
    ours, theirs = rows["accepted"].client, rows["accepted, redis-py pipeline"].client
    say(
        f"client: redis-py {theirs / ours:.1f} times ours, {(theirs - encode) / (ours - encode):.1f} without the encode"
    )


def keep_best(rows: dict[str, Cost], name: str, cost: Cost) -> None:
    known = rows.get(name, cost)
    rows[name] = Cost(min(known.client, cost.client), min(known.server, cost.server))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, help="server binary; otherwise the one that would be found")
    asyncio.run(main(parser.parse_args().server))
