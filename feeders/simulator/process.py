"""A simulator in a process of its own, for tests and for the demonstration; it dies with its parent."""

import asyncio
import gc
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from bookbus.feeders.simulator.exchanges import Ready, create, ready_line, settings_of, symbols_from
from bookbus.schemas.snapshot import Levels

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
