"""`smoke`: five minutes of paper trading through the real path, with a verdict."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bookbus.feeders.commands.options import fail
from bookbus.feeders.servers.process import LocalRedisError
from bookbus.feeders.simulator.process import SimulatorError
from bookbus.feeders.smoke import Smoke, SmokeError, Source

EXAMPLES = """
Exchange, feeder, private server, runner and analyzer, one after the other as a user would start them.

The exit code is that of the analyzer: 0 only if every row of its verdict holds. The exchange is simulated unless
--live is given.

\b
  python -m feeders smoke
  python -m feeders smoke --live --exchange upbit
  python -m feeders smoke --source multi --seconds 60
"""


def smoke(
    source: Annotated[
        Source, typer.Option(envvar="BOOKBUS_SMOKE_SOURCE", help="Where the runner gets its books.")
    ] = "redis",
    exchange: Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Whose books the feeder takes.")] = "binance",
    seconds: Annotated[float, typer.Option(envvar="BOOKBUS_SMOKE_SECONDS", min=1, help="How long.")] = 300.0,
    live: Annotated[bool, typer.Option("--live", envvar="BOOKBUS_LIVE", help="Go to the exchange itself.")] = False,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="Another seed is another market.")] = 1,
    output_dir: Annotated[Path, typer.Option(envvar="BOOKBUS_OUTPUT_DIR", help="For all files.")] = Path("logs/smoke"),
) -> None:
    """Five minutes of paper trading through the real path, with a verdict."""
    # Ctrl-C reaches the runner as well: it writes its results and ends, and that ends this.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = Smoke(source, exchange, seconds, output_dir, live, seed).run()
    except (SmokeError, SimulatorError, LocalRedisError, ValueError) as error:
        fail(str(error))
    raise typer.Exit(code)


smoke.__doc__ = EXAMPLES
