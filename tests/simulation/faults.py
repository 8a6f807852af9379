"""The faults of one run: drawn from its seed, begun and ended at their times."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.exchange import RATES

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FIRST, LAST = 4.0, 20.0
"""Seconds between which faults happen."""

_LONG = ("replica-lag", "exchange-stall")
"""Kinds that show only after a time."""

JUMPS = (0.7, 2.0, 4.0, 8.0, 60.0, 600.0, 86400.0)

End = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`begin` makes it happen, and returns what ends it."""

    kind: str
    start: float
    end: float
    begin: Callable[["Simulation"], End]


def draw(rng: random.Random, kinds: list[str]) -> list[Fault]:
    """One to five faults, which may overlap."""
    faults = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 5))):
        kind = rng.choice(kinds)
        start = rng.uniform(FIRST, LAST - 2)
        end = min(start + rng.choice((rng.uniform(0.1, 2), rng.uniform(2, 7), rng.uniform(5, 14))), LAST)
        if kind in _LONG and rng.random() < 0.5:
            start, end = rng.uniform(FIRST, FIRST + 3), rng.uniform(LAST - 3, LAST)
        faults.append(Fault(kind, start, end, _KINDS[kind](random.Random(rng.getrandbits(32)))))
    return sorted(faults, key=lambda fault: fault.start)


def _nothing() -> None:
    pass


def _feeder_kill(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        slot = simulation.feeder_at(place)
        slot.stop()
        return slot.start

    return begin


def _feeder_pause(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        return simulation.pause(simulation.feeder_at(place).process)

    return begin


def _exchange_drop(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        simulation.exchange.disconnect(rng.choice(("*", simulation.feeder_at(place).host)))
        return _nothing

    return begin


def _exchange_silent(rng: random.Random) -> Callable[["Simulation"], End]:
    place, both = rng.random(), rng.random() < 0.5

    def begin(simulation: "Simulation") -> End:
        return simulation.cut(simulation.exchange.host, simulation.feeder_at(place).host, both=both)

    return begin


def _exchange_stall(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        host, stalled = simulation.feeder_at(place).host, simulation.exchange.stalled
        stalled.add(host)

        def end() -> None:
            stalled.discard(host)
            simulation.exchange.disconnect(host)

        return end

    return begin


def _exchange_restart(rng: random.Random) -> Callable[["Simulation"], End]:
    back = rng.choice((3, 20, 200, 10_000_000))

    def begin(simulation: "Simulation") -> End:
        simulation.exchange.restart_ids(back)
        return _nothing

    return begin


def _exchange_gap(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        if simulation.mode == "diff":
            simulation.exchange.lose_a_message(simulation.feeder_at(place).host)
        return _nothing

    return begin


def _exchange_pace(rng: random.Random) -> Callable[["Simulation"], End]:
    pace = rng.choice(list(RATES))

    def begin(simulation: "Simulation") -> End:
        before = simulation.exchange.rate
        simulation.exchange.set_rate(pace)
        return lambda: simulation.exchange.set_rate(before)

    return begin


def _server_restart(rng: random.Random) -> Callable[["Simulation"], End]:
    keep = rng.random() < 0.5

    def begin(simulation: "Simulation") -> End:
        server = simulation.primary
        simulation.stop_server(server)
        return lambda: simulation.restart_server(server, keep_data=keep)

    return begin


def _server_pause(rng: random.Random) -> Callable[["Simulation"], End]:
    def begin(simulation: "Simulation") -> End:
        return simulation.pause(simulation.primary)

    return begin


def _server_full(rng: random.Random) -> Callable[["Simulation"], End]:
    error = rng.choice(
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist on disk.",
        )
    )

    def begin(simulation: "Simulation") -> End:
        server = simulation.primary
        server.refuses = error

        def end() -> None:
            server.refuses = ""

        return end

    return begin


def _server_flush(rng: random.Random) -> Callable[["Simulation"], End]:
    def begin(simulation: "Simulation") -> End:
        for server in simulation.servers:
            server.data.clear()
            server.expires_us.clear()
        simulation.checks.data_lost()
        return _nothing

    return begin


def _failover(rng: random.Random) -> Callable[["Simulation"], End]:
    lag = rng.choice((0.0, 0.5, 3.0, 10.0))

    def begin(simulation: "Simulation") -> End:
        # The replica falls behind first, or else nothing would be older there.
        replica = simulation.replica
        replica.lag = max(replica.lag, lag)
        return simulation.fail_over

    return begin


def _replica_lag(rng: random.Random) -> Callable[["Simulation"], End]:
    lag = rng.choice((1.0, 4.0, 9.0, 11.0))

    def begin(simulation: "Simulation") -> End:
        replica = simulation.replica
        replica.lag = lag
        return replica.catch_up

    return begin


def _clock(which: str) -> Callable[[random.Random], Callable[["Simulation"], End]]:
    def make(rng: random.Random) -> Callable[["Simulation"], End]:
        jump, place, back = rng.choice((-1, 1)) * rng.choice(JUMPS), rng.random(), rng.random() < 0.5

        def begin(simulation: "Simulation") -> End:
            process = {
                "feeder": simulation.feeder_at(place).process,
                "server": simulation.primary,
                "replica": simulation.replica,
                "reader": simulation.reader_at(place),
            }[which]
            clock = process.clock
            clock.offset += jump

            def end() -> None:
                if back:
                    clock.offset -= jump

            return end

        return begin

    return make


def _cut(first: str, second: str) -> Callable[[random.Random], Callable[["Simulation"], End]]:
    def make(rng: random.Random) -> Callable[["Simulation"], End]:
        place, both, turned = rng.random(), rng.random() < 0.6, rng.random() < 0.5

        def begin(simulation: "Simulation") -> End:
            hosts = {
                "feeder": simulation.feeder_at(place).host,
                "server": simulation.primary.host,
                "replica": simulation.replica.host,
                "reader": simulation.reader_at(place).host,
            }
            ends = (hosts[first], hosts[second])
            return simulation.cut(*(ends[::-1] if turned else ends), both=both)

        return begin

    return make


def _reader_pause(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        return simulation.pause(simulation.reader_at(place))

    return begin


def _reader_restart(rng: random.Random) -> Callable[["Simulation"], End]:
    place = rng.random()

    def begin(simulation: "Simulation") -> End:
        return simulation.restart_reader(place)

    return begin


def _foreign_network(rng: random.Random) -> Callable[["Simulation"], End]:
    def begin(simulation: "Simulation") -> End:
        slot = simulation.foreign_network
        slot.start()
        return slot.stop

    return begin


def _foreign_shape(rng: random.Random) -> Callable[["Simulation"], End]:
    def begin(simulation: "Simulation") -> End:
        slot = simulation.foreign_shape
        slot.start()
        return slot.stop

    return begin


_KINDS: dict[str, Callable[[random.Random], Callable[["Simulation"], End]]] = {
    "feeder-kill": _feeder_kill,
    "feeder-pause": _feeder_pause,
    "exchange-drop": _exchange_drop,
    "exchange-silent": _exchange_silent,
    "exchange-stall": _exchange_stall,
    "exchange-restart": _exchange_restart,
    "exchange-gap": _exchange_gap,
    "exchange-pace": _exchange_pace,
    "server-restart": _server_restart,
    "server-pause": _server_pause,
    "server-full": _server_full,
    "server-flush": _server_flush,
    "failover": _failover,
    "replica-lag": _replica_lag,
    "clock-feeder": _clock("feeder"),
    "clock-server": _clock("server"),
    "clock-replica": _clock("replica"),
    "clock-reader": _clock("reader"),
    "cut-feeder": _cut("feeder", "server"),
    "cut-reader": _cut("reader", "server"),
    "cut-replica": _cut("server", "replica"),
    "reader-pause": _reader_pause,
    "reader-restart": _reader_restart,
    "network": _foreign_network,
    "shape": _foreign_shape,
}

KINDS = tuple(_KINDS)

PENDING: dict[str, str] = {
    "network": "the claim of a network goes over redis-py, which has no place in this simulation",
    "failover": "a reader that was connected may show the older book of the replica as live for a moment",
}
"""Kinds that are not held here, with the reason or with what a reader sees."""

HELD = tuple(kind for kind in KINDS if kind not in PENDING)
