"""Simulated exchanges by name, and one in a separate process that ends with its parent."""

import asyncio
import gc
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import msgspec

from bookbus.feeders.simulator.core.exchange import ExchangeSimulator
from bookbus.schemas.instruments import EXCHANGES
from bookbus.schemas.snapshot import Levels


class Ready(msgspec.Struct):
    """Addresses and symbols of a started exchange, printed as one line of JSON."""

    exchange: str
    ws_url: str
    rest_url: str
    symbols: list[str]


def simulated_exchanges() -> list[str]:
    return [exchange for exchange in EXCHANGES if find_spec(f"bookbus.feeders.simulator.{exchange}")]


def settings_of(exchange: str, values: Mapping[str, Any]) -> Any:
    """Settings of an exchange from plain values, with defaults for the rest. Raises ValueError.

    `clock_speed` is the speed of the clock of the exchange's limits.
    """
    if exchange not in simulated_exchanges():
        raise ValueError(f"no simulator for {exchange!r}: use {' or '.join(simulated_exchanges())}")
    kind = _simulator_of(exchange).SETTINGS
    wanted = {name: value for name, value in values.items() if name != "clock_speed"}
    if unknown := wanted.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{exchange} has no option {', '.join(sorted(unknown))}")
    if "clock_speed" in values:
        wanted["rules"] = (wanted.get("rules") or kind().rules).scaled(values["clock_speed"])
    try:
        return msgspec.convert(wanted, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def create(exchange: str, settings: Any) -> ExchangeSimulator[Any, Any]:
    """A simulated exchange that has not started yet; `settings` are those of `settings_of`."""
    return _simulator_of(exchange)(settings=settings)


def _simulator_of(exchange: str) -> type[ExchangeSimulator[Any, Any]]:
    simulator: type[ExchangeSimulator[Any, Any]] = import_module(f"{__package__}.{exchange}.exchange").SIMULATOR
    return simulator


def ready_line(exchange: str, simulator: ExchangeSimulator[Any, Any]) -> str:
    """The line with the addresses of a started exchange, for the parent process."""
    ready = Ready(exchange, simulator.ws_url, simulator.rest_url, simulator.symbols)
    return msgspec.json.encode(ready).decode()


_STOP_LIMIT = 10.0
_REQUEST_LIMIT = 10.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or rejected a request."""


class _Job(msgspec.Struct):
    """The exchange that the process serves, and the settings of that exchange."""

    exchange: str
    settings: msgspec.Raw


class SimulatorProcess:
    """`with SimulatorProcess(symbols=["BTCUSDT"], seed=1) as exchange:` — options as in the exchange's settings.

    Its calls block; from a coroutine use `asyncio.to_thread`.
    """

    def __init__(
        self, symbols: Iterable[str] | int | None = None, *, exchange: str = "binance", **options: Any
    ) -> None:
        """Raises ValueError for options that the exchange does not have."""
        if symbols is not None:
            options["symbols"] = symbols if isinstance(symbols, int) else tuple(symbols)
        self._job = _Job(exchange, msgspec.Raw(msgspec.json.encode(settings_of(exchange, options))))
        self._process: subprocess.Popen[bytes] | None = None
        self.ws_url = ""
        self.rest_url = ""
        self.symbols: list[str] = []

    @property
    def pid(self) -> int:
        """Raises SimulatorError if it is not started."""
        if self._process is None:
            raise SimulatorError("not started")
        return self._process.pid

    def start(self) -> None:
        """Returns once it accepts connections. Raises SimulatorError."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bookbus.feeders.simulator.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to the parent alone; this process ends with it
        )
        self._process = process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        process.stdin.write(msgspec.json.encode(self._job) + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SimulatorError(f"the simulator ended with code {process.wait(_STOP_LIMIT)}")
        ready = msgspec.json.decode(line, type=Ready)
        self.ws_url, self.rest_url, self.symbols = ready.ws_url, ready.rest_url, ready.symbols

    def stop(self) -> None:
        """End the process, even one suspended by a signal."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        process.stdin.close()
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> "SimulatorProcess":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def truth(self, symbol: str, update_id: int, depth: int = 20) -> tuple[Levels, Levels] | None:
        """True bids and asks at this id; None if not remembered."""
        try:
            return _levels(self._get(f"/control/truth?symbol={quote(symbol)}&update_id={update_id}&depth={depth}"))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
            raise

    def truths(
        self, symbol: str, since: int = 0, depth: int = 20, until: int | None = None
    ) -> dict[int, tuple[Levels, Levels]]:
        """Every true book that is remembered from the id `since` to `until`, by update id."""
        last = "" if until is None else f"&until={until}"
        answer = self._get(f"/control/truth?symbol={quote(symbol)}&since={since}{last}&depth={depth}")
        return {book["update_id"]: _levels(book) for book in answer["books"]}

    def timeline(self, symbol: str, since_us: int = 0) -> list[tuple[int, int]]:
        """Times (microseconds since 1970) at which the update id changed, and the new ids, oldest first."""
        answer = self._get(f"/control/timeline?symbol={quote(symbol)}&since_us={since_us}")
        return [(at, update_id) for at, update_id in answer["books"]]

    def inject(self, **fault: Any) -> None:
        """Play a fault, given the fields of `Fault`. Raises SimulatorError with the reason if it is rejected."""
        self._post("/control/fault", fault)

    def clear(self) -> None:
        self._post("/control/clear", {})

    def status(self) -> dict[str, Any]:
        return self._get("/control/status")

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.rest_url + path, timeout=_REQUEST_LIMIT) as answer:  # noqa: S310
            value: dict[str, Any] = json.load(answer)
            return value

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(self.rest_url + path, json.dumps(body).encode(), method="POST")  # noqa: S310
        try:
            urllib.request.urlopen(request, timeout=_REQUEST_LIMIT).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            with error:
                raise SimulatorError(json.load(error)["error"]) from None


def _levels(book: dict[str, Any]) -> tuple[Levels, Levels]:
    bids, asks = (tuple((float(price), float(quantity)) for price, quantity in book[side]) for side in ("bids", "asks"))
    return bids, asks


async def main() -> None:
    """Serve the exchange that the first line on standard input describes, until standard input closes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    job = msgspec.json.decode(await reader.readline(), type=_Job)
    exchange = create(job.exchange, settings_of(job.exchange, msgspec.json.decode(job.settings)))
    # Objects that exist now live to the end: keep the garbage collector from scanning them.
    gc.freeze()
    gc.set_threshold(50_000)
    async with exchange:
        sys.stdout.write(ready_line(job.exchange, exchange) + "\n")
        sys.stdout.flush()
        await reader.read()


if __name__ == "__main__":
    asyncio.run(main())
