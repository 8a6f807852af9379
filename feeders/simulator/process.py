"""A simulator in a process of its own, for tests and for the demonstration; it dies with its parent."""

import asyncio
import gc
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas.instruments import EXCHANGES
from bookbus.schemas.snapshot import Levels


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


_STOP_LIMIT = 10.0
_REQUEST_LIMIT = 10.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused what it was asked for."""


class _Job(msgspec.Struct):
    """What the process is to serve; the settings are the exchange's own."""

    exchange: str
    settings: msgspec.Raw


class _Book(msgspec.Struct):
    update_id: int
    bids: Levels
    asks: Levels


class _Books(msgspec.Struct):
    books: list[_Book]


class SimulatorProcess:
    """`with SimulatorProcess(symbols=["BTCUSDT"], seed=1) as exchange:` — options as in the exchange's settings.

    Its calls block; from a coroutine use `asyncio.to_thread`.
    """

    def __init__(
        self, symbols: Iterable[str] | int | None = None, *, exchange: str = "binance", **options: Any
    ) -> None:
        """Raises ValueError for options that the exchange does not have."""
        if symbols is not None:
            options["symbols"] = symbols_from(symbols)
        self._job = _Job(exchange, msgspec.Raw(msgspec.json.encode(settings_of(exchange, options))))
        self._process: subprocess.Popen[bytes] | None = None
        self.ws_url = ""
        self.rest_url = ""
        self.symbols: list[str] = []

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise SimulatorError("not started")
        return self._process.pid

    def start(self) -> None:
        """Return once it accepts connections. Raises SimulatorError."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bookbus.feeders.simulator.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for its parent, with which it ends
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
        """End the process; also one that is stopped by a signal."""
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
        """True bids and asks at this id; None if not known."""
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
        """Every true book that is still remembered from an id on, up to another if given, by update id."""
        last = "" if until is None else f"&until={until}"
        answer = self._get(f"/control/truth?symbol={quote(symbol)}&since={since}{last}&depth={depth}")
        return {book["update_id"]: _levels(book) for book in answer["books"]}

    def inject(self, **fault: Any) -> None:
        """Play a fault: the fields of `Fault`. Raises SimulatorError with the reason it cannot."""
        self._post("/control/fault", fault)

    def clear(self) -> None:
        """End all faults that last or wait."""
        self._post("/control/clear", {})

    def status(self) -> dict[str, Any]:
        """What `/control/status` tells."""
        return self._get("/control/status")

    def _get(self, path: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._get_bytes(path))
        return value

    def _get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(self.rest_url + path, timeout=_REQUEST_LIMIT) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body

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


async def _serve(job: _Job, reader: asyncio.StreamReader) -> None:
    exchange = create(job.exchange, settings_of(job.exchange, msgspec.json.decode(job.settings)))
    # What is there now stays: no need to look through it again and again.
    gc.freeze()
    gc.set_threshold(50_000)
    async with exchange:
        sys.stdout.write(ready_line(job.exchange, exchange) + "\n")
        sys.stdout.flush()
        await reader.read()


async def main() -> None:
    """Serve what the first line on standard input asks for, until that closes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await _serve(msgspec.json.decode(await reader.readline(), type=_Job), reader)


if __name__ == "__main__":
    asyncio.run(main())
