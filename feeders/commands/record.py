"""`record`: what an exchange sends, written to a file; no bus needed."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from bookbus.feeders.commands.options import LogLevel, Symbols, fail, run_until_signal, select_symbols, start_logging
from bookbus.feeders.commands.run import choose_venue, feed_options, open_markets
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.recording import Recorder
from bookbus.feeders.settings import FeederSettings
from bookbus.feeders.venue import Venue

logger = logging.getLogger(__name__)

_PROGRESS_INTERVAL = 10.0

EXAMPLES = """
Write everything an exchange sends of some symbols to a capture file, until Ctrl-C or for some seconds.

\b
  python -m feeders record --exchange binance --symbols BTC,ETH --out btc_eth.jsonl.gz
  python -m feeders record --symbols BTC --topics book,trades --seconds 600 --out btc.jsonl.gz
"""


def record(
    out: Annotated[Path, typer.Option(envvar="BOOKBUS_OUT", help="New file; .gz compresses.")],
    exchange: Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange id.")] = "binance",
    symbols: Symbols = "BTC,ETH",
    mode: Annotated[str | None, typer.Option(envvar="BOOKBUS_MODE", help="diff or partial.")] = None,
    depth: Annotated[int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels a side.")] = 20,
    topics: Annotated[
        str | None, typer.Option(envvar="BOOKBUS_TOPICS", help="Of book, quote, trades; all by default.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop by itself after so long.")] = None,
    ws_url: Annotated[str | None, typer.Option(envvar="BOOKBUS_WS_URL", help="Another WebSocket base address.")] = None,
    rest_url: Annotated[str | None, typer.Option(envvar="BOOKBUS_REST_URL", help="Another REST base address.")] = None,
    log_level: LogLevel = "info",
) -> None:
    """Write everything an exchange sends of some symbols to a capture file."""
    start_logging(log_level)
    venue = choose_venue(exchange)
    settings = FeederSettings(
        exchange=exchange,
        selection=select_symbols(symbols),
        ws_url=ws_url,
        rest_url=rest_url,
        options=feed_options(venue, mode, depth, topics),
        record_to=out,
    )
    try:
        recorder = Recorder(out, exchange)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    try:
        run_until_signal(_record(settings, venue, recorder, seconds))
    finally:
        recorder.close()
        if recorder.frames:
            typer.echo(f"{recorder.frames} frames in {out}", err=True)
        else:
            out.unlink()  # the name should be free for the next try
    if not recorder.frames:
        fail(f"nothing was received, so {out} was not kept")


record.__doc__ = EXAMPLES


async def _record(settings: FeederSettings, venue: Venue, recorder: Recorder, seconds: float | None) -> None:
    async with open_markets(settings, venue) as markets:
        feed = ExchangeFeed(
            venue,
            [instrument.native for instrument in markets.chosen],
            lambda *_: None,
            options=settings.options,
            settings=settings.connection,
            registry=markets.registry,
            ws_url=settings.ws_url,
            rest_url=settings.rest_url,
            on_frame=recorder.on_frame,
            on_answer=recorder.on_answer,
        )
        work = [asyncio.create_task(part) for part in (feed.run(), recorder.run(), _report(recorder))]
        try:
            done, _ = await asyncio.wait(work, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)


async def _report(recorder: Recorder) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL)
        logger.info("%d frames recorded", recorder.frames)
