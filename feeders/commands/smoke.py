"""`smoke`: five minutes of paper trading through feeder, server, runner and analyzer, with a verdict."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bookbus.command_line import exchange_id, fail
from bookbus.feeders.redis_server import LocalRedisError, LocalServer
from bookbus.feeders.simulator.process import SimulatorError, SimulatorProcess

Source = Literal["redis", "binance", "upbit", "multi"]

_PYTHON = (sys.executable, "-m")
_STOP_LIMIT = 10.0
_SIMULATED = {"binance": ("BTCUSDT", "ETHUSDT"), "upbit": ("KRW-BTC", "KRW-ETH", "KRW-USDT")}


def smoke(
    source: Annotated[
        Source, typer.Option(envvar="BOOKBUS_SMOKE_SOURCE", help="Source of the runner's books.")
    ] = "redis",
    exchange: Annotated[
        str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange of the feeder.", callback=exchange_id)
    ] = "binance",
    seconds: Annotated[float, typer.Option(envvar="BOOKBUS_SMOKE_SECONDS", min=1, help="Duration.")] = 300.0,
    live: Annotated[bool, typer.Option("--live", envvar="BOOKBUS_LIVE", help="Use the exchange itself.")] = False,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="Another seed gives another market.")] = 1,
    output_dir: Annotated[Path, typer.Option(envvar="BOOKBUS_OUTPUT_DIR", help="Directory of all files.")] = Path(
        "logs/smoke"
    ),
) -> None:
    """Exchange, feeder, private server, runner and analyzer, started as a user would start them.

    The exit code is that of the analyzer: 0 only if every row of its verdict passes. The exchange is simulated unless
    --live is given.

    \b
      python -m feeders smoke
      python -m feeders smoke --live --exchange upbit
      python -m feeders smoke --source multi --seconds 60
    """
    # Ctrl-C reaches the runner too: it writes its results and ends, which ends this command.
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        code = Smoke(source, exchange, seconds, output_dir, live, seed).run()
    except (SmokeError, SimulatorError, LocalRedisError, ValueError) as error:
        fail(str(error))
    raise typer.Exit(code)


class SmokeError(Exception):
    """The run cannot be started."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """One run. `live` uses the exchanges themselves, otherwise they are simulated; `exchange` is that of the feeder."""

    source: Source
    exchange: str
    seconds: float
    directory: Path
    live: bool = False
    seed: int = 1

    def run(self) -> int:
        """Returns the exit code of the runner if that is not 0, else that of the analyzer. Raises SmokeError."""
        environment = dict(os.environ)
        with contextlib.ExitStack() as stack:
            if not self.live:
                environment |= self._simulate(stack)
            arguments = ["--l2-source", self.source, "--duration-seconds", f"{self.seconds:g}"]
            if self.source == "multi":
                arguments += ["--inventory-notional", "1000"]
            if self.source == "redis":
                url = stack.enter_context(LocalServer()).url
                stack.enter_context(self._feeder(url, environment))
                arguments += ["--redis", url, "--exchange", self.exchange]
            code = _consumers("run", *arguments, "--output-dir", str(self.directory), environment=environment)
        return code or self._analyze(environment)

    def _simulate(self, stack: contextlib.ExitStack) -> dict[str, str]:
        """Start the exchanges that the source needs. Returns their addresses as environment variables."""
        needed = {"redis": (self.exchange,), "multi": tuple(_SIMULATED)}.get(self.source, (self.source,))
        found = {}
        for exchange in needed:
            if exchange not in _SIMULATED:
                raise SmokeError(f"{exchange} is not simulated here: use {' or '.join(_SIMULATED)}")
            simulator = SimulatorProcess(_SIMULATED[exchange], exchange=exchange, seed=self.seed)
            simulator.start()
            stack.callback(simulator.stop)
            found[f"BOOKBUS_{exchange.upper()}_WS_URL"] = simulator.ws_url
            found[f"BOOKBUS_{exchange.upper()}_REST_URL"] = simulator.rest_url
        return found

    @contextlib.contextmanager
    def _feeder(self, url: str, environment: dict[str, str]) -> Iterator[None]:
        command = [*_PYTHON, "feeders", "run", "--exchange", self.exchange, "--redis", url, "--symbols", "BTC,ETH"]
        for option in ("ws", "rest"):
            if address := environment.get(f"BOOKBUS_{self.exchange.upper()}_{option.upper()}_URL"):
                command += [f"--{option}-url", address]
        with tempfile.TemporaryDirectory() as cache:
            # Own session: Ctrl-C must stop the runner first, which needs books to the end.
            process = subprocess.Popen(command, env=environment | {"XDG_CACHE_HOME": cache}, start_new_session=True)
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(_STOP_LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _analyze(self, environment: dict[str, str]) -> int:
        events = max(self.directory.glob("fill_events_*.jsonl"), key=lambda path: path.stat().st_mtime)
        session = events.stem.removeprefix("fill_events_")
        kpi = ["--kpi", str(self.directory / f"kpi_{session}.json")]
        report = ["--report", str(self.directory / f"report_{session}")]
        return _consumers("analyze", "--events-file", str(events), *kpi, *report, environment=environment)


def _consumers(*arguments: str, environment: dict[str, str]) -> int:
    command: Sequence[str] = [*_PYTHON, "consumers", *arguments]
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise
