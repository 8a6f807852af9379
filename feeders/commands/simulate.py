"""`simulate`: a simulated exchange with the real protocol, and faults on request."""

import asyncio
import contextlib
import gc
from typing import Annotated, Any, get_args

import msgspec
import typer

from bookbus.command_line import LogLevel, exchange_id, fail, split_names, start_logging
from bookbus.feeders.commands.options import run_until_signal
from bookbus.feeders.simulator.binance.settings import ErrorShape
from bookbus.feeders.simulator.core.faults import ANY_FRAME_FAULTS, KINDS, Fault
from bookbus.feeders.simulator.core.feed import SnapshotMode
from bookbus.feeders.simulator.process import create, ready_line, settings_of, simulated_exchanges
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS

_FAULT_KINDS = ", ".join(dict.fromkeys((*sorted({*ANY_FRAME_FAULTS, *UPBIT_FRAME_FAULTS}), *KINDS)))

_BOTH = ("binance", "upbit")


def simulate(
    exchange: Annotated[
        str,
        typer.Option(
            envvar="BOOKBUS_EXCHANGE", help=f"{', '.join(simulated_exchanges())}, or both.", callback=exchange_id
        ),
    ] = "binance",
    host: Annotated[str, typer.Option(envvar="BOOKBUS_SIMULATOR_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BOOKBUS_SIMULATOR_PORT", help="WebSocket; 0 takes a free one.")] = 0,
    rest_port: Annotated[
        int, typer.Option(envvar="BOOKBUS_SIMULATOR_REST_PORT", help="REST and control; 0 takes a free one.")
    ] = 0,
    symbols: Annotated[
        str | None,
        typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated names, or a number of synthetic markets."),
    ] = None,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="The same seed gives the same market.")] = 1,
    rate: Annotated[float, typer.Option(envvar="BOOKBUS_RATE", help="Updates a second and symbol, at most 10.")] = 10.0,
    levels: Annotated[int | None, typer.Option(envvar="BOOKBUS_LEVELS", help="Levels a side.")] = None,
    truth_depth: Annotated[
        int | None,
        typer.Option(envvar="BOOKBUS_TRUTH_DEPTH", help="Levels a side that a Binance remembers of its true books."),
    ] = None,
    changes: Annotated[int, typer.Option(envvar="BOOKBUS_CHANGES", help="Changes of the book per update.")] = 20,
    prepared: Annotated[
        float, typer.Option(envvar="BOOKBUS_PREPARED", help="Seconds of market to compute beforehand and replay.")
    ] = 0.0,
    clock_speed: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_CLOCK_SPEED", min=0.001, help="Speed of the clock for limits, pings and the 24 h."
        ),
    ] = 1.0,
    snapshot_mode: Annotated[
        str | None,
        typer.Option(
            envvar="BOOKBUS_SNAPSHOT_MODE", help=f"Id of a Binance snapshot: {', '.join(get_args(SnapshotMode))}."
        ),
    ] = None,
    rest_delay: Annotated[
        float, typer.Option(envvar="BOOKBUS_REST_DELAY", help="Seconds by which REST answers are delayed.")
    ] = 0.0,
    error_shape: Annotated[
        str | None,
        typer.Option(
            envvar="BOOKBUS_ERROR_SHAPE", help=f"Of Binance's error replies: {', '.join(get_args(ErrorShape))}."
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            envvar="BOOKBUS_FAULT",
            help=f"A kind, or JSON as for /control/fault. Each exchange has a part of the kinds: {_FAULT_KINDS}.",
        ),
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """A simulated exchange on this machine: real WebSocket and REST protocol, synthetic markets, faults on request.

    It reports the true book at every update id. When it is ready it prints one line of JSON with its addresses; give
    them to a feeder. Ctrl-C stops it.

    \b
      python -m feeders simulate --symbols BTCUSDT,ETHUSDT --port 9443 --rest-port 9080
      python -m feeders run --symbols BTC,ETH --ws-url ws://127.0.0.1:9443 --rest-url http://127.0.0.1:9080
      python -m feeders simulate --symbols 500 --prepared 5                     load: 5,000 updates a second
      python -m feeders simulate --exchange both --symbols BTC,ETH              one line for each exchange
      python -m feeders simulate --fault '{"kind":"drop","symbols":["BTCUSDT"],"every":10}'
      curl 127.0.0.1:9080/control/status
      curl '127.0.0.1:9080/control/truth?symbol=BTCUSDT&update_id=8388502246&depth=5'
      curl -d '{"kind":"rest_status","value":429,"seconds":5}' 127.0.0.1:9080/control/fault
    """
    start_logging(log_level)
    values = {
        "symbols": _symbols(symbols),
        "host": host,
        "port": port,
        "rest_port": rest_port,
        "seed": seed,
        "rate": rate,
        "levels": levels,
        "truth_depth": truth_depth,
        "changes": changes,
        "prepared": prepared,
        "snapshot_mode": snapshot_mode,
        "rest_delay": rest_delay,
        "error_shape": error_shape,
        "clock_speed": clock_speed,
    }
    given = {name: value for name, value in values.items() if value is not None}
    if exchange == "both" and (port or rest_port):
        fail("--exchange both: each takes free ports, leave --port and --rest-port out")
    try:
        wanted = {each: settings_of(each, given) for each in (_BOTH if exchange == "both" else (exchange,))}
        faults = [_fault(text) for text in fault or []]
        run_until_signal(_serve(wanted, faults))
    except OSError as error:
        fail(f"cannot listen on {host}: {error.strerror or error}")
    except ValueError as error:
        fail(str(error))


def _symbols(text: str | None) -> int | tuple[str, ...] | None:
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    return split_names(text) or fail("no symbol given: use --symbols BTC,ETH")


def _fault(text: str) -> Fault:
    """Parse one `--fault`. Ends the program with an error if it is not valid."""
    try:
        return msgspec.json.decode(text, type=Fault) if text.lstrip().startswith("{") else Fault(kind=text)
    except (ValueError, msgspec.MsgspecError) as error:
        fail(f"--fault {text}: {error}")


async def _serve(wanted: dict[str, Any], faults: list[Fault]) -> None:
    exchanges = {exchange: create(exchange, settings) for exchange, settings in wanted.items()}
    for simulator in exchanges.values():
        for fault in faults:
            simulator.check_fault(fault)
    # Objects that exist now live to the end: keep the garbage collector from scanning them.
    gc.freeze()
    async with contextlib.AsyncExitStack() as stack:
        for exchange, simulator in exchanges.items():
            await stack.enter_async_context(simulator)
            for fault in faults:
                simulator.inject(fault)
            typer.echo(ready_line(exchange, simulator))
        await asyncio.Event().wait()
