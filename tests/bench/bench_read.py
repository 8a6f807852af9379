"""CPU time of reading a backlog: the push provider beside redis-py's own loop. Run by hand.

A private server; the reader is stopped while a part of the messages is published and goes on when all of it waits,
so that draining is what is measured. CPU time of the reading process for each message, all its threads together.

    python -m tests.bench.bench_read
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import redis

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import HEAD, encode_body
from tests.support.builders import book
from tests.support.waiting import wait_for

SYMBOLS = [f"S{number}-USDT" for number in range(100)]
CHANNELS = [RedisNames().book("binance", symbol) for symbol in SYMBOLS]
LEVELS = 20
PART = 20_000
UNLIMITED = ("--client-output-buffer-limit", "pubsub", "0", "0", "0")


def main() -> None:
    """The benchmark, or one of the readers that it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="messages for the provider")
    parser.add_argument("--compared", type=int, default=200_000, help="messages for each loop of redis-py")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        READERS[arguments.reader](arguments.url, arguments.messages)
        return
    with LocalServer(options=UNLIMITED) as server:
        figures = {
            name: measure(server.url, server.port, name, arguments.messages if name == "push" else arguments.compared)
            for name in READERS
        }
    print(f"\n{'reader':<16}{'messages':>10}{'us each':>9}{'times push':>12}")
    for name, (messages, microseconds) in figures.items():
        print(f"{name:<16}{messages:>10,}{microseconds:>9.2f}{microseconds / figures['push'][1]:>12.1f}")


def measure(url: str, port: int, name: str, messages: int) -> tuple[int, float]:
    """Number of messages, and microseconds of CPU time per message."""
    command = [sys.executable, "-m", "tests.bench.bench_read", "--reader", name, "--url", url]
    with (
        subprocess.Popen(
            [*command, "--messages", str(messages)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        ) as child,
        redis.Redis.from_url(url) as client,
        socket.create_connection(("127.0.0.1", port)) as publisher,
    ):
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        began, seq = time.monotonic(), 0
        for _ in range(messages // PART):
            child.send_signal(signal.SIGSTOP)
            seq = publish(publisher, seq)
            child.send_signal(signal.SIGCONT)
            wait_for(lambda: drained(client), timeout=60, what="draining")
            print(f"\r{name}: {seq * len(SYMBOLS):,} messages, {time.monotonic() - began:.0f} s", end="", flush=True)
        print()
        child.stdin.close()
        result = json.loads(child.stdout.readline())
    assert result["received"] == messages, result
    return messages, result["cpu"] / messages * 1e6


def publish(publisher: socket.socket, seq: int) -> int:
    """Publish a batch of messages with consecutive numbers after `seq`. Returns the last number."""
    levels = tuple((100.0 + level, 1.5) for level in range(LEVELS))
    bids, asks = tuple((price - 50, quantity) for price, quantity in reversed(levels)), levels
    bodies = [encode_body(book(symbol, bids=bids, asks=asks), "A", 1) for symbol in SYMBOLS]
    rounds = PART // len(SYMBOLS)
    for number in range(seq + 1, seq + rounds + 1):
        message = HEAD + number.to_bytes(8, "big")
        publisher.sendall(b"".join(_publish(CHANNELS[at], message + body) for at, body in enumerate(bodies)))
        expected = len(b":1\r\n") * len(SYMBOLS)
        while expected > 0:
            expected -= len(publisher.recv(expected))
    return seq + rounds


def _publish(channel: str, message: bytes) -> bytes:
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
        len(channel),
        channel.encode(),
        len(message),
        message,
    )


def drained(client: redis.Redis) -> bool:
    """Whether the server has no unsent bytes for subscribers."""
    waiting: Iterable[dict[str, str]] = client.client_list(_type="pubsub")
    return all(int(entry["omem"]) == 0 for entry in waiting)


def read_with_provider(url: str, messages: int) -> None:
    """The push provider, without reads of books."""
    with RedisMarketDataProvider(url, "binance", SYMBOLS) as provider:
        began = ready()
        sys.stdin.read()
        wait_for(lambda: received(provider) >= messages)
        cpu = time.process_time() - began
        status = provider.get_connection_status()
        assert not any(symbol.missed or symbol.resets for symbol in status.symbols.values()), status
        report(received(provider), cpu)


def received(provider: RedisMarketDataProvider) -> int:
    return sum(symbol.received for symbol in provider.get_connection_status().symbols.values())


def read_with_redis_py(url: str, messages: int, protocol: int) -> None:
    """The loop in redis-py's documentation, which keeps the newest message of each channel."""
    newest: dict[bytes, bytes] = {}
    client = redis.Redis.from_url(url, protocol=protocol)
    pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    pubsub.subscribe(*CHANNELS)
    while len(pubsub.channels) < len(CHANNELS):
        pubsub.get_message(timeout=1)
    began = ready()
    count = 0
    for message in pubsub.listen():
        newest[message["channel"]] = message["data"]
        count += 1
        if count == messages:
            break
    report(count, time.process_time() - began)
    pubsub.close()
    client.close()


def ready() -> float:
    """Report to the benchmark. Returns the CPU time so far."""
    os.write(1, b"ready\n")
    return time.process_time()


def report(count: int, cpu: float) -> None:
    os.write(1, json.dumps({"received": count, "cpu": cpu}).encode() + b"\n")


READERS: dict[str, Callable[[str, int], None]] = {
    "push": read_with_provider,
    "redis-py RESP2": lambda url, messages: read_with_redis_py(url, messages, 2),
    "redis-py RESP3": lambda url, messages: read_with_redis_py(url, messages, 3),
}

if __name__ == "__main__":
    main()
