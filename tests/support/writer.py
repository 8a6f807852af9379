"""Publishes books with the publish script, for tests of readers."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import redis

from bookbus.feeders.bus.publish_script import script_text
from bookbus.schemas.heartbeat import HEARTBEAT_TTL, FeederHeartbeat, encode_heartbeat, heartbeat_fields
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.wire import encode_body
from tests.support.builders import book

_CONFIRM_INTERVAL = 0.05

Kind = Literal["new", "again", "state"]


class BusWriter:
    """One feeder whose submissions and heartbeats a test sends."""

    def __init__(self, client: redis.Redis, feeder: str = "A", prefix: str = DEFAULT_PREFIX) -> None:
        self.client = client
        self.feeder = feeder
        database = client.get_connection_kwargs().get("db", 0)
        self.names = RedisNames(prefix, database)
        self._submitted: dict[str, OrderBookSnapshot] = {}
        self._submitting = threading.RLock()
        self._script = client.register_script(script_text(database=database))

    def submit(self, snapshot: OrderBookSnapshot, kind: Kind = "new") -> int:
        """The script's reply: 0 refused, 1 accepted, 2 confirmed."""
        (reply,) = self.submit_all([snapshot], kind)
        return reply

    def submit_all(self, snapshots: Iterable[OrderBookSnapshot], kind: Kind = "new") -> list[int]:
        """The replies for several books, in one pipeline."""
        with self._submitting, self.client.pipeline(transaction=False) as pipeline:
            for snapshot in snapshots:
                name = self.names.book(snapshot.exchange, snapshot.symbol)
                self._script([name], self._arguments(snapshot, kind), pipeline)
                pipeline.sadd(self.names.books, name)
                self._submitted[name] = snapshot
            return [int(reply) for reply in pipeline.execute()[::2]]

    def update(self, symbol: str = "BTC-USDT", update_id: int = 100, **fields: Any) -> int:
        """Submit a new book with these fields."""
        return self.submit(book(symbol, update_id=update_id, **fields))

    def confirm(self) -> None:
        """Confirm every book once, as a feeder does every 2 s."""
        with self._submitting:
            if submitted := list(self._submitted.values()):
                self.submit_all(submitted, "again")

    @contextlib.contextmanager
    def confirming(self) -> Iterator[None]:
        """Confirm every book all the time, in a thread."""
        stopping = threading.Event()

        def confirm() -> None:
            while not stopping.wait(_CONFIRM_INTERVAL):
                self.confirm()

        thread = threading.Thread(target=confirm)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def heartbeat(self, symbols: Iterable[str], exchange: str = "binance", late: float = 0.0) -> None:
        """Send a heartbeat, or one that is `late` seconds old."""
        beat = FeederHeartbeat(
            feeder=self.feeder,
            exchange=exchange,
            endpoint="test",
            states=dict.fromkeys(symbols, "live"),
            host="test",
            pid=1,
            started_us=0,
            time_us=time.time_ns() // 1000 - round(late * 1e6),
        )
        self.client.hset(
            self.names.feeder(self.feeder), items=[text for field in heartbeat_fields(beat).items() for text in field]
        )
        self.client.expire(self.names.feeder(self.feeder), HEARTBEAT_TTL)
        self.client.publish(self.names.feeders, encode_heartbeat(beat))

    def _arguments(self, snapshot: OrderBookSnapshot, kind: Kind) -> list[Any]:
        published_us = time.time_ns() // 1000
        bid, bid_quantity = snapshot.bids[0] if snapshot.bids else ("", "")
        ask, ask_quantity = snapshot.asks[0] if snapshot.asks else ("", "")
        body = encode_body(snapshot, self.feeder, published_us)
        best = [str(value) for value in (bid, bid_quantity, ask, ask_quantity)]
        return [kind, self.feeder, snapshot.update_id, snapshot.state, published_us, *best, body]
