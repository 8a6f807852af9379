"""`simulate`: a local exchange that speaks the real protocol and can misbehave."""

import asyncio
import gc
from typing import Annotated, get_args

import msgspec
import typer

from feeders.commands.options import LogLevel, fail, run_until_signal, split_symbols, start_logging
from feeders.simulator.binance import BinanceSimulator
from feeders.simulator.faults import KINDS, Fault
from feeders.simulator.feed import SnapshotMode
from feeders.simulator.settings import BinanceRules, ErrorShape, SimulatorSettings

EXAMPLES = f"""
A local exchange with made-up markets: real WebSocket and REST, the true book at every update id, faults on request.

When it is ready it prints one line of JSON with its addresses; point a feeder at them. Ctrl-C stops it.

\b
  python -m feeders simulate --symbols BTCUSDT,ETHUSDT --port 9443 --rest-port 9080
  python -m feeders run --symbols BTC,ETH --ws-url ws://127.0.0.1:9443 --rest-url http://127.0.0.1:9080
  python -m feeders simulate --symbols 500 --prepared 5                     load: 5,000 updates a second
  python -m feeders simulate --fault '{{"kind":"drop","symbols":["BTCUSDT"],"every":10}}'
  curl 127.0.0.1:9080/control/status
  curl '127.0.0.1:9080/control/truth?symbol=BTCUSDT&update_id=8388502246&depth=5'
  curl -d '{{"kind":"rest_status","value":429,"seconds":5}}' 127.0.0.1:9080/control/fault

Faults: {", ".join(KINDS)}.
"""


def simulate(
    exchange: Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange id: binance.")] = "binance",
    host: Annotated[str, typer.Option(envvar="BOOKBUS_SIMULATOR_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BOOKBUS_SIMULATOR_PORT", help="WebSocket; 0 takes a free one.")] = 0,
    rest_port: Annotated[
        int, typer.Option(envvar="BOOKBUS_SIMULATOR_REST_PORT", help="REST and control; 0 takes a free one.")
    ] = 0,
    symbols: Annotated[
        str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated, or how many to make up.")
    ] = "BTCUSDT,ETHUSDT",
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="The same seed gives the same market.")] = 1,
    rate: Annotated[float, typer.Option(envvar="BOOKBUS_RATE", help="Updates a second and symbol, at most 10.")] = 10.0,
    levels: Annotated[int, typer.Option(envvar="BOOKBUS_LEVELS", help="Levels a side.")] = 6000,
    changes: Annotated[int, typer.Option(envvar="BOOKBUS_CHANGES", help="Changes of the book per update.")] = 20,
    prepared: Annotated[
        float, typer.Option(envvar="BOOKBUS_PREPARED", help="Compute so many seconds beforehand and replay them.")
    ] = 0.0,
    clock_speed: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_CLOCK_SPEED", min=0.001, help="How fast time runs for limits, pings and the 24 h."
        ),
    ] = 1.0,
    snapshot_mode: Annotated[
        str,
        typer.Option(envvar="BOOKBUS_SNAPSHOT_MODE", help=f"Id of a snapshot: {', '.join(get_args(SnapshotMode))}."),
    ] = "flushed",
    rest_delay: Annotated[
        float, typer.Option(envvar="BOOKBUS_REST_DELAY", help="Seconds a REST answer is on its way.")
    ] = 0.0,
    error_shape: Annotated[
        str, typer.Option(envvar="BOOKBUS_ERROR_SHAPE", help=f"Of error replies: {', '.join(get_args(ErrorShape))}.")
    ] = "nested",
    fault: Annotated[
        list[str] | None, typer.Option(envvar="BOOKBUS_FAULT", help="A kind, or JSON as for /control/fault.")
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """A local exchange with made-up markets."""
    start_logging(log_level)
    if exchange != "binance":
        fail(f"no simulator for {exchange!r}: use binance")
    values = {
        "symbols": int(symbols)
        if symbols.isdigit()
        else split_symbols(symbols) or fail("no symbol given: use --symbols BTCUSDT"),
        "host": host,
        "port": port,
        "rest_port": rest_port,
        "seed": seed,
        "rate": rate,
        "levels": levels,
        "changes": changes,
        "prepared": prepared,
        "snapshot_mode": snapshot_mode,
        "rest_delay": rest_delay,
        "error_shape": error_shape,
        "rules": BinanceRules().scaled(clock_speed),
    }
    try:
        settings = msgspec.convert(values, SimulatorSettings)
        faults = [_fault(text) for text in fault or []]
        run_until_signal(_serve(settings, faults))
    except OSError as error:
        fail(f"cannot listen on {host}: {error.strerror or error}")
    except (ValueError, msgspec.MsgspecError) as error:
        fail(str(error))


simulate.__doc__ = EXAMPLES


def _fault(text: str) -> Fault:
    """What one `--fault` means. Ends the program in one line if that is nothing."""
    try:
        return msgspec.json.decode(text, type=Fault) if text.lstrip().startswith("{") else Fault(kind=text)
    except (ValueError, msgspec.MsgspecError) as error:
        fail(f"--fault {text}: {error}")


async def _serve(settings: SimulatorSettings, faults: list[Fault]) -> None:
    exchange = BinanceSimulator(settings=settings)
    # What is there now stays: no need to look through it again and again.
    gc.freeze()
    async with exchange:
        for fault in faults:
            exchange.inject(fault)
        typer.echo(exchange.ready_line())
        await asyncio.Event().wait()
