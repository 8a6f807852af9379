"""One run: an exchange, feeders, a primary and a replica, readers, faults, and the checks."""

import contextlib
import logging
import random
import selectors
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from bookbus.consumers.redis_provider import Mode
from bookbus.feeders.feeder import Feeder
from bookbus.feeders.venue import FeedMode
from tests.simulation.checks import HEALED_ON_REPLICA, ON_REPLICA, Checks, age_limit
from tests.simulation.exchange import RATES, Exchange
from tests.simulation.faults import KINDS, LAST, Fault, draw
from tests.simulation.feeder import make_feeder, rest_get, websocket_connect
from tests.simulation.reader import BookReader, TailClient, TradeReader, connect_socket
from tests.simulation.server import Server
from tests.simulation.world import (
    WORLDS,
    Clock,
    Listener,
    Process,
    TaskProcess,
    ThreadProcess,
    VirtualSelector,
    VirtualTime,
    World,
)

DURATION = LAST + HEALED_ON_REPLICA + 1.0
SAMPLE_INTERVAL = 0.2
NATIVES = {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"}
DRIFT = 5e-5
USUAL_OFFSET = 0.5
"""Seconds by which the clock of a machine may be wrong without a fault."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one seed showed."""

    seed: int
    violations: list[str]
    trace: list[str]
    faults: list[str]
    live: int
    readings: int


def simulate(seed: int, kinds: Sequence[str] = KINDS) -> Result:
    """Run one seed; the same one gives the same trace."""
    with installed():
        logging_was, random_was = logging.root.manager.disable, random.getstate()
        logging.disable(logging.CRITICAL)
        random.seed(seed)
        simulation = Simulation(seed, kinds)
        WORLDS.append(simulation.world)
        try:
            return simulation.run()
        finally:
            for process in simulation.world.processes:
                process.kill()
            WORLDS.pop()
            logging.disable(logging_was)
            random.setstate(random_was)


class FeederSlot:
    """The place of one feeder: each start is a new process on the same machine."""

    def __init__(
        self, simulation: "Simulation", name: str, exchange: Exchange, mode: FeedMode, depth: int, lines: int
    ) -> None:
        self.host = name
        self.feeder: Feeder | None = None
        self._simulation = simulation
        self._exchange = exchange
        self._shape = mode, depth, lines
        self._clock = simulation.clock()
        self.process = TaskProcess(simulation.world, name, self._clock, simulation.host)
        self.process.alive = False
        self._runs = 0

    def start(self) -> None:
        if self.process.alive:
            return
        self._runs += 1
        world = self._simulation.world
        world.note(f"{self.host} starts")
        self.process = TaskProcess(world, self.host, self._clock, self._simulation.host)
        mode, depth, lines = self._shape

        async def main() -> None:
            natives = list(NATIVES.values())[: self._simulation.symbols]
            name = f"{self.host}-{self._runs}"
            self.feeder = make_feeder(natives, self._exchange.host, mode, depth, lines, name)
            await self.feeder.run()

        self.process.start(main)

    def stop(self) -> None:
        if self.process.alive:
            self._simulation.world.note(f"{self.host} is killed")
            self.process.kill()


class Simulation:
    """Everything of one seed."""

    def __init__(self, seed: int, kinds: Sequence[str]) -> None:
        self.seed = seed
        self.world = world = World(seed)
        rng = world.rng
        self.symbols = rng.choice((1, 1, 2))
        natives = list(NATIVES.values())
        self.exchange = Exchange(world, "exchange", natives, 100.0, 5_000_000)
        self.exchange.set_rate(rng.choice(list(RATES)))
        self.servers = [Server(world, f"server{number}", self.clock()) for number in range(2)]
        self.primary, self.replica = self.servers
        self.replica.follow(self.primary)
        self.mode: FeedMode = rng.choice(("diff", "partial"))
        mode = self.mode
        self.depth = rng.choice((5, 10))
        lines = rng.choice((1, 1, 2))
        self.feeders = [
            FeederSlot(self, f"feeder{number}", self.exchange, mode, self.depth, lines)
            for number in range(rng.choice((1, 2, 2)))
        ]
        self.testnet = Exchange(world, "testnet", natives, 50.0, 900_000_000)
        self.foreign_network = FeederSlot(self, "foreign", self.testnet, mode, self.depth, 1)
        other_depth = 20 if self.depth == 5 else 5
        self.foreign_shape = FeederSlot(self, "other-shape", self.exchange, mode, other_depth, 1)
        self.faults = draw(rng, list(kinds))
        limit = age_limit([fault.kind for fault in self.faults])
        self.checks = Checks(world, self.exchange, NATIVES, self.depth, limit, LAST, self._clocks_differ)
        self.tail: TradeReader | None = None
        self._readers: list[_ReaderSlot] = [
            _ReaderSlot(self, "push", "bus", "push"),
            _ReaderSlot(self, ON_REPLICA, "replica", "push"),
            _ReaderSlot(self, "pull", "bus", "pull"),
        ]
        self._pauses: dict[Process, int] = {}
        self._cuts: dict[tuple[str, str], int] = {}
        self._down: dict[Server, int] = {}

    def clock(self) -> Clock:
        """Another machine's: a little too fast or slow, and wrong by up to half a second."""
        rng = self.world.rng
        return Clock(
            self.world, 1 + rng.uniform(-DRIFT, DRIFT), rng.choice((0.0, rng.uniform(-USUAL_OFFSET, USUAL_OFFSET)))
        )

    def host(self, name: str) -> Callable[[], Listener | None]:
        return lambda: {
            "bus": self.primary,
            "replica": self.replica,
            "exchange": self.exchange,
            "testnet": self.testnet,
        }.get(name)

    def run(self) -> Result:
        world = self.world
        for fault in self.faults:
            world.at(fault.start, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        for feeder in self.feeders:
            world.after(world.rng.uniform(0.0, 0.5), feeder.start)
        for slot in self._readers:
            world.after(world.rng.uniform(0.5, 1.5), slot.start)
        world.after(1.5, self._start_tail)
        self._ping_replicas()
        self._look()
        world.run(DURATION)
        self._judge_end()
        return Result(
            self.seed,
            self.checks.violations,
            world.trace,
            [f"{fault.kind} {fault.start:.1f}-{fault.end:.1f}" for fault in self.faults],
            self.checks.live,
            self.checks.readings,
        )

    # what faults use

    def feeder_at(self, place: float) -> FeederSlot:
        return self.feeders[int(place * len(self.feeders))]

    def reader_at(self, place: float) -> ThreadProcess:
        return self._readers[int(place * len(self._readers))].process

    def restart_reader(self, place: float) -> Callable[[], None]:
        slot = self._readers[int(place * len(self._readers))]
        slot.process.kill()
        return slot.start

    def pause(self, process: Process) -> Callable[[], None]:
        self._pauses[process] = self._pauses.get(process, 0) + 1
        process.pause()

        def end() -> None:
            self._pauses[process] -= 1
            if not self._pauses[process] and process.paused:
                process.resume()

        return end

    def cut(self, source: str, target: str, *, both: bool) -> Callable[[], None]:
        ways = [(source, target), (target, source)] if both else [(source, target)]
        for way in ways:
            self._cuts[way] = self._cuts.get(way, 0) + 1
            self.world.cut(*way)

        def end() -> None:
            for way in ways:
                self._cuts[way] -= 1
                if not self._cuts[way]:
                    self.world.heal(*way)

        return end

    def stop_server(self, server: Server) -> None:
        self._down[server] = self._down.get(server, 0) + 1
        if server.alive:
            server.kill()

    def restart_server(self, server: Server, *, keep_data: bool) -> None:
        self._down[server] -= 1
        if self._down[server]:
            return
        server.restart(keep_data=keep_data)
        if not keep_data:
            self.checks.data_lost()
        if server is self.primary:
            self.replica.follow(server)
        else:
            server.follow(self.primary)

    def fail_over(self) -> None:
        """The primary dies, and the replica takes over as far as it has got; the old one follows it later."""
        old, new = self.primary, self.replica
        if not new.alive or new.paused:
            return
        self.stop_server(old)
        new.promote()
        new.lag = 0.0
        self.primary, self.replica = new, old
        self.world.note(f"{new.host} takes over")
        self.world.after(1.0, lambda: self.restart_server(old, keep_data=True))

    # the course of a run

    def _begin(self, fault: Fault) -> None:
        self.world.note(f"fault {fault.kind} until {fault.end:.2f}")
        end = fault.begin(self)

        def finish() -> None:
            self.world.note(f"end of {fault.kind}")
            end()

        self.world.at(fault.end, finish)

    def _look(self) -> None:
        for slot in self._readers:
            if slot.reader is not None:
                slot.reader.look()
        self.world.after(SAMPLE_INTERVAL, self._look)

    def _clocks_differ(self) -> bool:
        """Whether a clock that a reader of the replica compares is wrong by more than a usual one."""
        offsets = [server.clock.offset for server in self.servers] + [
            slot.process.clock.offset for slot in self.feeders
        ]
        return max(offsets) - min(offsets) > 2 * USUAL_OFFSET

    def _start_tail(self) -> None:
        self.tail = TradeReader(
            ThreadProcess(self.world, "tail", self.clock(), self.host), *next(iter(NATIVES.items()))
        )

    def _ping_replicas(self) -> None:
        self.primary.enter(self.primary.heartbeat_to_replicas)
        self.world.after(1.0, self._ping_replicas)

    def _judge_end(self) -> None:
        for process in self.world.processes:
            if isinstance(process, TaskProcess | ThreadProcess):
                for failure in process.failures:
                    self.checks.bug(process.host, failure)
            if isinstance(process, TaskProcess) and process.ended is not None:
                self.checks.bug(process.host, repr(process.ended))
        for slot in self.feeders:
            if slot.feeder is None or f"md:feeder:{slot.feeder.id}".encode() not in self.primary.data:
                self.checks.bug(slot.host, "it has no heartbeat")
        if self.tail is not None:
            stream, until = b"md:trades:binance:" + next(iter(NATIVES)).encode(), DURATION - 2.0
            added = [entry for server in self.servers for entry in server.trades_added]
            due = [trade for at, key, trade in added if key == stream and self.tail.since < at < until]
            ids = [int(trade.trade_id) for trade in self.tail.taken]
            self.checks.trades("tail", ids, due, told=self.tail.told)


class _ReaderSlot:
    """The place of one reader."""

    def __init__(self, simulation: Simulation, name: str, host: str, mode: Mode) -> None:
        self.reader: BookReader | None = None
        self._simulation = simulation
        self._name, self._host, self._mode = name, host, mode
        self._clock = simulation.clock()
        self.process = self._process()
        self.process.alive = False

    def start(self) -> None:
        if self.process.alive:
            return
        simulation = self._simulation
        simulation.checks.reader_started(self._name)
        self.process = self._process()
        self.reader = BookReader(
            self.process,
            self._host,
            list(NATIVES)[: simulation.symbols],
            self._mode,
            lambda symbol, reading: simulation.checks.see(self._name, symbol, reading),
        )

    def _process(self) -> ThreadProcess:
        return ThreadProcess(self._simulation.world, self._name, self._clock, self._simulation.host)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """The product's modules read the world's clocks and use its network."""
    virtual = VirtualTime()
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("bookbus.") and getattr(module, "time", None) is time:
                stack.enter_context(mock.patch.object(module, "time", virtual))
        for target, value in _REPLACED.items():
            stack.enter_context(mock.patch(target, value))
        yield


_selectors = SimpleNamespace(DefaultSelector=VirtualSelector, EVENT_READ=selectors.EVENT_READ)
_REPLACED: dict[str, Any] = {
    "bookbus.feeders.websocket_client.connect": websocket_connect,
    "bookbus.feeders.rest_client.RestClient.get": rest_get,
    "bookbus.feeders.feeder.unique_feeder_id": lambda _, name: str(name),
    "bookbus.consumers.bus.connection._connect": connect_socket,
    "bookbus.consumers.bus.reader.selectors": _selectors,
    "bookbus.consumers.bus.reader._PauseSelector": VirtualSelector,
    "bookbus.consumers.bus.trades.control_client": TailClient,
}
