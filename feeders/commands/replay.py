"""`replay`: publish a recording to Redis."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bookbus.command_line import PREFIX_DEFAULT, LogLevel, Prefix, add_kept_password, fail, split_names, start_logging
from bookbus.feeders.bus.network import NetworkTakenError
from bookbus.feeders.bus.servers import SERVER_ERRORS
from bookbus.feeders.commands.options import Depth, require_redis, run_until_signal
from bookbus.feeders.commands.run import feed_options
from bookbus.feeders.errors import ReplayError
from bookbus.feeders.redis_server import LocalRedisError, LocalServer
from bookbus.feeders.replay import ReplayFeeder, ReplayResult
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

_NAMES = {"book": "books", "quote": "quotes", "trades": "trades"}


def replay(
    capture: Annotated[Path, typer.Argument(help="File written by `record`, compressed or not.")],
    speed: Annotated[str, typer.Option(envvar="BOOKBUS_SPEED", help="Multiple of the recorded speed, or max.")] = "max",
    symbols: Annotated[str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Only these symbols; by default all.")] = "",
    depth: Depth = 20,
    topics: Annotated[
        str, typer.Option(envvar="BOOKBUS_TOPICS", help="Any of book, quote, trades, comma-separated.")
    ] = "book",
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            envvar="BOOKBUS_REPLAY_REDIS_URL",
            help="Redis URL; by default a private server is started.",
            callback=add_kept_password,
        ),
    ] = None,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "warning",
) -> None:
    """Publish a recording through the same order books as the live feed.

    Without --redis, to a private server. Every change of a book is published; the final books stay. Exit code 0 only
    if every wanted book and quote ends live and no book lacked levels because its snapshot was too small, or, of
    trades alone, if there are some. A recording without a list of
    instruments is read by the spelling of its symbols; one like BTCPLN is left out unless --symbols names BTC-PLN.

    \b
      python -m feeders replay btc_eth.jsonl.gz
      python -m feeders replay btc_eth.jsonl.gz --speed 1 --redis redis://127.0.0.1:6379/0 --prefix replay
      python -m feeders replay btc_eth.jsonl.gz --speed 10 --symbols BTC
    """
    start_logging(log_level)
    options = feed_options(None, None, depth, topics)
    names = split_names(symbols)
    results: list[ReplayResult] = []

    async def work(url: str) -> None:
        await require_redis(url)
        try:
            feeder = ReplayFeeder(capture, url, RedisNames.on(url, prefix), options, _speed(speed), names)
            results.append(await feeder.run())
        except (ReplayError, NetworkTakenError, ValueError) as error:
            fail(str(error))
        except SERVER_ERRORS as error:
            fail(f"{masked(url)}: {redacted(error, secrets_of(url))}")
        except OSError as error:
            fail(f"cannot read {capture}: {error.strerror or error}")

    if redis is not None:
        run_until_signal(work(redis))
    else:
        try:
            with LocalServer() as server:
                run_until_signal(work(server.url))
        except LocalRedisError as error:
            fail(str(error))
    if not results:
        raise typer.Exit(130)
    _summarise(results[0], options)
    if not results[0].complete:
        raise typer.Exit(1)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    return speed if speed > 0 else fail(f"--speed {text}: use 1, another number above zero, or max")


def _summarise(result: ReplayResult, options: FeedOptions) -> None:
    """Print the final book of every symbol, and the faults of the recording."""
    books = {(book.symbol, topic): book for topic, book in result.books}
    table = Table("symbol", "topic", "state", "update id", "best bid", "best ask", "levels")
    for (symbol, topic), state in sorted(result.states.items()):
        book = books.get((symbol, topic))
        levels = (
            ("-", "-", "-", "-")
            if book is None
            else (
                str(book.update_id),
                _text(book.best_bid()),
                _text(book.best_ask()),
                f"{len(book.bids)} x {len(book.asks)}",
            )
        )
        table.add_row(symbol, topic, state, *levels)
    for symbol, count in sorted(result.trades.items()):
        table.add_row(symbol, "trades", f"{count} trades", "-", "-", "-", "-")
    Console().print(table)
    counters = result.counters
    counts = ", ".join(
        f"{result.published.get(topic, 0)} {name}" for topic, name in _NAMES.items() if topic in options.topics
    )
    unchanged = f", {counters.unchanged} updates did not change the best {options.depth} levels"
    typer.echo(
        f"{result.frames} frames of {result.recorded_seconds:.0f} s, {counts} published"
        f"{unchanged if 'book' in options.topics else ''}"
    )
    if counters.windows_left:
        typer.echo(
            f"windows_left: published levels reached {counters.windows_left} times beyond those of a snapshot", err=True
        )
    if result.cut_off:
        typer.echo("the recording is truncated: its last line is incomplete", err=True)
    if result.bad_lines or counters.skipped:
        typer.echo(
            f"skipped {result.bad_lines} lines that are no frames and {counters.skipped} frames that cannot be decoded"
            f"{f' (the last: {counters.last_skipped})' if counters.skipped else ''}",
            err=True,
        )
    if counters.ignored:
        parts = ", ".join(f"{name} {count}" for name, count in sorted(counters.ignored.items()))
        typer.echo(f"ignored: {parts}", err=True)
    if counters.bad_times:
        typer.echo(f"{counters.bad_times} implausible exchange times were not used", err=True)
    if result.corrected_times:
        typer.echo(
            f"{result.corrected_times} recorded times were out of order, by up to {result.largest_correction:.0f} s, "
            "and were corrected",
            err=True,
        )
    if result.shallow:
        typer.echo(
            f"error: {len(result.shallow)} books lacked levels at times ({', '.join(result.shallow)}): their snapshots "
            f"have too few for the best {options.depth}; try a smaller --depth",
            err=True,
        )
    incomplete = [f"{symbol} {topic}" for (symbol, topic), state in result.states.items() if state != "live"]
    if result.unnamed:
        named = "; ".join(result.unnamed.values())
        typer.echo(
            f"error: {len(result.unnamed)} symbols are left out, which no list of instruments in the recording has: "
            f"{named}",
            err=True,
        )
    if incomplete:
        typer.echo(
            f"error: {len(incomplete)} of {len(result.states)} books are incomplete "
            f"({', '.join(sorted(incomplete)).replace(' book', '')}): "
            "the recording has no snapshot that their updates continue",
            err=True,
        )
    elif not (result.complete or result.unnamed or result.shallow):
        typer.echo(f"error: the recording has no {' and no '.join(sorted(options.topics))} of these symbols", err=True)


def _text(price: float | None) -> str:
    return "-" if price is None else f"{price:.10g}"
