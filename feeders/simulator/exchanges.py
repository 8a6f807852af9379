"""Every local exchange by its id: `feeders/simulator/<id>.py` says by `SIMULATOR` and `SETTINGS` how to make it."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import msgspec

from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas.instruments import EXCHANGES


class Simulator(AbstractAsyncContextManager["Simulator"], Protocol):
    """What a program that starts one needs of it."""

    @property
    def ws_url(self) -> str:
        """Base address of the sockets."""

    @property
    def rest_url(self) -> str:
        """Base address of requests, those to the control endpoint included."""

    @property
    def symbols(self) -> list[str]:
        """Native names of all markets."""

    def inject(self, fault: Fault) -> None:
        """Play a fault. Raises FaultError."""


class Ready(msgspec.Struct):
    """What a started exchange says of itself, as one line of JSON."""

    exchange: str
    ws_url: str
    rest_url: str
    symbols: list[str]


def simulated_exchanges() -> list[str]:
    """Ids of all that can be simulated."""
    return [exchange for exchange in EXCHANGES if find_spec(f"bookbus.feeders.simulator.{exchange}")]


def settings_of(exchange: str, values: Mapping[str, Any]) -> Any:
    """Settings from values, which may be plain; what is not named has defaults. Raises ValueError.

    `clock_speed` is how fast time runs for the exchange's limits.
    """
    if exchange not in simulated_exchanges():
        raise ValueError(f"no simulator for {exchange!r}: use {' or '.join(simulated_exchanges())}")
    kind = import_module(f"bookbus.feeders.simulator.{exchange}.exchange").SETTINGS
    wanted = {name: value for name, value in values.items() if name != "clock_speed"}
    if unknown := wanted.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{exchange} has no option {', '.join(sorted(unknown))}")
    if "clock_speed" in values:
        wanted["rules"] = (wanted.get("rules") or kind().rules).scaled(values["clock_speed"])
    try:
        return msgspec.convert(wanted, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def create(exchange: str, settings: Any) -> Simulator:
    """An exchange that has not started yet; the settings are its own."""
    simulator: Simulator = import_module(f"bookbus.feeders.simulator.{exchange}.exchange").SIMULATOR(settings=settings)
    return simulator


def ready_line(exchange: str, simulator: Simulator) -> str:
    """Where a started exchange is."""
    ready = Ready(exchange, simulator.ws_url, simulator.rest_url, simulator.symbols)
    return msgspec.json.encode(ready).decode()


def symbols_from(symbols: Iterable[str] | int) -> tuple[str, ...] | int:
    """Names, or how many to make up."""
    return symbols if isinstance(symbols, int) else tuple(symbols)
