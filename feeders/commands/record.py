"""`record`: write what an exchange sends to a file, without Redis."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import Exchange, LogLevel, fail, start_logging
from bookbus.feeders.commands.options import Depth, RestUrl, Symbols, WsUrl, run_until_signal, select_symbols
from bookbus.feeders.commands.run import choose_venue, feed_options, open_markets
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.feeder import FeederSettings
from bookbus.feeders.recording import Recorder
from bookbus.feeders.venue import Venue

logger = logging.getLogger(__name__)

_PROGRESS_INTERVAL = 10.0


def record(
    out: Annotated[Path, typer.Option(envvar="BOOKBUS_OUT", help="New file; .gz compresses.")],
    exchange: Exchange = "binance",
    symbols: Symbols = "BTC,ETH",
    mode: Annotated[str | None, typer.Option(envvar="BOOKBUS_MODE", help="diff or partial.")] = None,
    depth: Depth = 20,
    topics: Annotated[
        str | None,
        typer.Option(envvar="BOOKBUS_TOPICS", help="Any of book, quote, trades, comma-separated; by default all."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    ws_url: WsUrl = None,
    rest_url: RestUrl = None,
    log_level: LogLevel = "info",
) -> None:
    """Write all that an exchange sends about some symbols to a capture file, until Ctrl-C or for --seconds.

    \b
      python -m feeders record --exchange binance --symbols BTC,ETH --out btc_eth.jsonl.gz
      python -m feeders record --symbols BTC --topics book,trades --seconds 600 --out btc.jsonl.gz
    """
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
            out.unlink(missing_ok=True)  # so that the next run can use the name
    if recorder.error:
        fail(f"the recording ended early: {recorder.error}")
    if not recorder.frames:
        fail(f"no frame was received; {out} was removed")


async def _record(settings: FeederSettings, venue: Venue, recorder: Recorder, seconds: float | None) -> None:
    async with open_markets(settings, venue) as markets:
        recorder.on_instruments(markets.chosen)
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
