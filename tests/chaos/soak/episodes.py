"""The faults of a soak run: a sequence of episodes chosen by a seed, and the books that each may affect."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bookbus.feeders.simulator.core.faults import FRAME_FAULTS
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS

Bus = Literal["kill clients", "kill subscribers", "restart", "crash", "pause", "flush data", "flush scripts"]

_BUS: tuple[Bus, ...] = (
    "kill clients",
    "kill subscribers",
    "restart",
    "crash",
    "pause",
    "flush data",
    "flush scripts",
)
_SHORT_HOLD = 2.0
_UNANSWERED = 13.0
"""A subscription that is not answered ends its connection after ten seconds."""

_ONE_CONNECTION = 5.0
"""Seconds in which a subscription fault affects the first connection after a reset, but not the second."""

_NOT_JUDGED = {
    "binance": (),
    # Of two books in one millisecond the simulator keeps only the later one. Every message of this exchange is a
    # complete book, so a feeder cannot recognise a book without bids as wrong.
    "upbit": ("same_time", "empty_side"),
}
"""Wrong data of the exchange that no feeder can detect."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault. `touches` are the native symbols whose books may become suspect; None means all of the exchange's.
    A fault of the bus may make no book suspect.
    """

    name: str
    exchange: str = ""
    faults: tuple[Mapping[str, Any], ...] = ()
    bus: Bus | None = None
    touches: tuple[str, ...] | None = ()
    hold: float = _SHORT_HOLD
    """Seconds until the fault is ended."""


def episodes(seed: int, markets: Mapping[str, Sequence[str]]) -> Iterator[tuple[float, Episode]]:
    """Endless pairs of seconds to wait and the next episode. `markets` are native symbols by exchange."""
    rng = random.Random(seed)
    while True:
        quiet = rng.uniform(5.0, 15.0)
        exchange = rng.choice([*markets, "bus"])
        if exchange == "bus":
            action = rng.choice(_BUS)
            yield quiet, Episode(name=action, bus=action)
        else:
            yield quiet, _of_exchange(rng, exchange, markets[exchange])


def _of_exchange(rng: random.Random, exchange: str, natives: Sequence[str]) -> Episode:
    frames = FRAME_FAULTS if exchange == "binance" else UPBIT_FRAME_FAULTS
    connection = _connection_faults(rng, exchange)
    if rng.random() < 0.5:
        faults, hold = rng.choice(connection)
        name = " + ".join(fault["kind"] for fault in faults)
        return Episode(name, exchange, faults, touches=None, hold=hold)
    symbols = tuple(rng.sample(list(natives), rng.randint(1, 3)))
    kinds: list[tuple[str, ...]] = [(kind,) for kind in sorted(frames) if kind not in _NOT_JUDGED[exchange]]
    if exchange == "binance":
        # A lost update makes the feeder request the faulty snapshot.
        kinds += [("stale_snapshot", "drop"), ("empty_snapshot", "drop"), ("rest_truncated", "drop")]
        kinds += [("rest_delay", "drop"), ("rest_status", "drop"), ("rest_timeout", "drop")]
    chosen = rng.choice(kinds)
    faults = tuple(_on_symbols(kind, symbols) for kind in chosen)
    return Episode(" + ".join(chosen), exchange, faults, touches=symbols)


def _on_symbols(kind: str, symbols: Sequence[str]) -> dict[str, Any]:
    fault: dict[str, Any] = {"kind": kind, "symbols": symbols}
    return fault | ({"value": 503} if kind == "rest_status" else {})


def _connection_faults(rng: random.Random, exchange: str) -> list[tuple[tuple[dict[str, Any], ...], float]]:
    """Faults of whole connections, each with the seconds it lasts."""
    silence = rng.uniform(1.0, 14.0)
    found: list[tuple[tuple[dict[str, Any], ...], float]] = [
        (({"kind": "silence"},), silence),
        (({"kind": "silence", "value": "no pongs"},), silence),
        (({"kind": "half_open"},), silence),
        (({"kind": "slow_drip", "value": 20_000},), 5.0),
        (({"kind": "reset"},), _SHORT_HOLD),
        (({"kind": "cold_restart"},), _SHORT_HOLD),
        (({"kind": "subscribe_ignored", "seconds": _ONE_CONNECTION}, {"kind": "reset"}), _UNANSWERED),
        (({"kind": "ack_error", "seconds": _ONE_CONNECTION}, {"kind": "reset"}), _UNANSWERED),
        (({"kind": "refuse_connections", "seconds": 3.0}, {"kind": "reset"}), 4.0),
        (({"kind": "refuse_connections", "seconds": 3.0, "value": "http"}, {"kind": "reset"}), 4.0),
        *((({"kind": "close", "value": code},), _SHORT_HOLD) for code in (1000, 1001, 1006, 1011)),
    ]
    if exchange == "binance":
        found += [
            (({"kind": "server_shutdown", "value": 1.0},), 3.0),
            (({"kind": "ack_lost", "seconds": _ONE_CONNECTION}, {"kind": "reset"}), _UNANSWERED),
            (({"kind": "ack_delayed", "value": 1.0}, {"kind": "reset"}), 4.0),
        ]
    return found
