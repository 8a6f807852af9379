"""`run`: publish live books of one exchange to Redis."""

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, get_args

import typer

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    Exchange,
    LogLevel,
    Prefix,
    RedisUrl,
    fail,
    start_logging,
)
from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.network import NetworkClaim, NetworkTakenError, choose_network
from bookbus.feeders.bus.servers import SERVER_ERRORS
from bookbus.feeders.commands.options import (
    Depth,
    NetworkName,
    RestUrl,
    Symbols,
    WsUrl,
    end_if_cancelled,
    require_redis,
    run_until_signal,
    select_symbols,
)
from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchange_feed import ConnectionSettings
from bookbus.feeders.feeder import Feeder, FeederSettings, report_refusal, unique_feeder_id
from bookbus.feeders.markets import Markets, MetadataSource
from bookbus.feeders.recording import Recorder, unused_path
from bookbus.feeders.service_manager import ServiceManager
from bookbus.feeders.trading import TRADING_INTERVAL
from bookbus.feeders.venue import FeedMode, FeedOptions, Venue, venue_of
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

logger = logging.getLogger(__name__)

_PROGRESS_INTERVAL = 2.0
_STATUS_INTERVAL = 60.0
_COLLECT_AFTER = 50_000
"""Threshold of the youngest generation. Thousands of pending messages hold that many containers, and with Python's
default threshold each collection of them took milliseconds.
"""


def run(
    exchange: Exchange = "binance",
    symbols: Symbols = "BTC,ETH",
    mode: Annotated[
        str | None,
        typer.Option(
            envvar="BOOKBUS_MODE",
            help="diff (snapshots and updates, exact) or partial (complete books of few levels); "
            "by default the better one that the exchange has.",
        ),
    ] = None,
    depth: Depth = 20,
    topics: Annotated[
        str, typer.Option(envvar="BOOKBUS_TOPICS", help="Any of book, quote, trades, comma-separated.")
    ] = "book",
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    ws_url: WsUrl = None,
    rest_url: RestUrl = None,
    network: NetworkName = None,
    feeder_id: Annotated[
        str | None, typer.Option(envvar="BOOKBUS_FEEDER_ID", help="Name of this feeder; each run adds a unique suffix.")
    ] = None,
    snapshot_limit: Annotated[
        int | None,
        typer.Option(envvar="BOOKBUS_SNAPSHOT_LIMIT", min=100, max=5000, help="Levels per side of REST snapshots."),
    ] = None,
    shard: Annotated[
        str, typer.Option(envvar="BOOKBUS_SHARD", help="Only this part of the symbols: 2/5 is the second of five.")
    ] = "1/1",
    lines: Annotated[
        int, typer.Option(envvar="BOOKBUS_LINES", min=1, max=4, help="Connections that carry each symbol.")
    ] = 1,
    audit_interval: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_AUDIT_INTERVAL",
            min=0.0,
            help="Seconds between two comparisons of a book with the exchange's snapshot; 0 for none.",
        ),
    ] = 2.0,
    trading_interval: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_TRADING_INTERVAL",
            min=0.0,
            help="Seconds between two questions to the exchange which of the markets trade; 0 for none.",
        ),
    ] = TRADING_INTERVAL,
    record: Annotated[
        Path | None,
        typer.Option(
            envvar="BOOKBUS_RECORD",
            help="Also write all received frames to this file; a name that exists gets a number.",
        ),
    ] = None,
    log_level: LogLevel = "info",
) -> None:
    """Publish live books of one exchange to Redis, until Ctrl-C.

    \b
      python -m feeders run --exchange binance --symbols BTC,ETH
      python -m feeders run --symbols BTC-USDT,SOL-USDC --topics book,quote,trades
      python -m feeders run --symbols all:USDT
      python -m feeders run --exchange upbit --symbols top:50,USDT-KRW
      python -m feeders run --symbols all:USDT --shard 2/5
      python -m feeders run --symbols BTC,ETH --lines 2
      python -m feeders run --mode partial --depth 10 --redis redis://10.0.0.5:6379/0
    """
    start_logging(log_level)
    venue = choose_venue(exchange)
    listings_interval = _listings_interval()
    if record is not None and lines > 1:
        fail("--record writes the frames of one connection: use it with --lines 1")
    settings = FeederSettings(
        exchange=exchange,
        selection=select_symbols(symbols, shard),
        redis_url=redis,
        prefix=prefix,
        feeder_name=feeder_id,
        ws_url=ws_url,
        rest_url=rest_url,
        network=network,
        options=feed_options(venue, mode, depth, topics, snapshot_limit),
        connection=ConnectionSettings(lines=lines),
        record_to=record,
        audit_interval=audit_interval,
        trading_interval=trading_interval,
    )
    run_until_signal(_run(settings, venue, listings_interval))


def feed_options(
    venue: Venue | None, mode: str | None, depth: int, topics: str | None, snapshot_limit: int | None = None
) -> FeedOptions:
    """Options of a feed of this venue (None: not known yet). Exits with an error if the venue does not offer them.

    Without `mode` the venue's first mode is used, without `topics` all of its topics.
    """
    modes, offered = (venue.modes, venue.topics) if venue else (get_args(FeedMode), get_args(Topic))
    if mode is not None and mode not in modes:
        fail(f"--mode {mode}: use {' or '.join(modes)}")
    wanted = [topic.strip() for topic in topics.split(",") if topic.strip()] if topics is not None else offered
    if not wanted or not set(wanted) <= set(offered):
        fail(f"--topics {topics}: use any of {', '.join(offered)}")
    return FeedOptions(mode or modes[0], depth, frozenset(wanted), snapshot_limit)  # type: ignore[arg-type]


def choose_venue(exchange: str) -> Venue:
    """The venue with this id. Exits with an error if there is none."""
    try:
        return venue_of(exchange)
    except (SymbolError, ImportError) as error:
        fail(str(error))


@contextlib.asynccontextmanager
async def open_markets(settings: FeederSettings, venue: Venue) -> AsyncIterator[Markets]:
    """The exchange's instruments and the selected ones. Exits with an error if a selected one does not exist."""
    rest = venue.rest(settings.rest_url or venue.rest_url, settings.connection.timeout)
    try:
        markets = await Markets.load(MetadataSource(venue, rest, settings.cache_directory), settings.selection)
        end_if_cancelled()
        yield markets
    except (SymbolError, RestError) as error:
        fail(str(error))
    finally:
        await rest.close()


def _listings_interval() -> float:
    """Seconds between two requests of the exchange's list of markets."""
    text = os.environ.get("BOOKBUS_LISTINGS_INTERVAL", "600")
    try:
        interval = float(text)
    except ValueError:
        interval = 0.0
    if not 0 < interval < float("inf"):
        fail(f"BOOKBUS_LISTINGS_INTERVAL {text}: use a number of seconds above zero")
    return interval


async def _run(settings: FeederSettings, venue: Venue, listings_interval: float) -> None:
    await require_redis(settings.redis_url)
    ws_url = settings.ws_url or venue.ws_url
    try:
        venue.protocol((), settings.options)
        claim = NetworkClaim(
            settings.redis_url,
            RedisNames.on(settings.redis_url, settings.prefix),
            settings.exchange,
            choose_network(venue.networks, settings.network, ws_url, settings.rest_url or venue.rest_url),
            unique_feeder_id(settings.exchange, settings.feeder_name),
            networks=venue.networks,
            endpoint=masked(ws_url),
        )
    except ValueError as error:
        fail(str(error))
    try:
        async with claim.kept():
            await _publish(settings, venue, listings_interval, claim)
    except NetworkTakenError as error:
        await report_refusal(settings, claim, masked(ws_url))
        fail(str(error))
    except SERVER_ERRORS as error:
        fail(f"{masked(settings.redis_url)}: {redacted(error, secrets_of(settings.redis_url))}")


async def _publish(settings: FeederSettings, venue: Venue, listings_interval: float, claim: NetworkClaim) -> None:
    end_if_cancelled()
    recorder, record_error = _open_recording(settings.record_to, settings.exchange)
    on_frame, on_answer = (recorder.on_frame, recorder.on_answer) if recorder else (None, None)
    async with open_markets(settings, venue) as markets, asyncio.TaskGroup() as tasks:
        feeder = Feeder(settings, venue, markets.registry, markets.chosen, on_frame, on_answer, claim)
        manager = ServiceManager.of(os.environ)
        duties = {
            "report": _report(feeder),
            "watchdog": manager.feed_watchdog(feeder.written, lambda: _summary(feeder)),
        }
        if settings.selection.follows_listings or markets.missing:
            duties["listings"] = _follow_listings(feeder, markets, listings_interval, recorder)
        if recorder is not None:
            recorder.on_instruments(markets.chosen)
            duties["recording"] = _record(feeder, recorder)
        elif record_error:
            feeder.failed["recording"] = record_error
        helpers = [tasks.create_task(feeder.contain(name, duty)) for name, duty in duties.items()]
        # Books have no reference cycles, and the modules loaded by now stay: collecting rarely avoids pauses.
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        manager.report("READY=1")
        try:
            await feeder.run()
        finally:
            manager.report("STOPPING=1")
            for helper in helpers:
                helper.cancel()


def _open_recording(path: Path | None, exchange: str) -> tuple[Recorder | None, str]:
    """The recorder, if one is wanted and possible, else why not: a feeder goes on without it."""
    if path is None:
        return None, ""
    unused = unused_path(path)
    if unused != path:
        logger.warning("%s exists: recording to %s", path, unused)
    try:
        return Recorder(unused, exchange), ""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        logger.error("cannot record to %s: %s", unused, reason)
        return None, reason


async def _record(feeder: Feeder, recorder: Recorder) -> None:
    await recorder.run()
    feeder.failed["recording"] = recorder.error


async def _follow_listings(feeder: Feeder, markets: Markets, interval: float, recorder: Recorder | None) -> None:
    """Add new markets and drop delisted ones, without a restart."""
    while True:
        await asyncio.sleep(interval)
        try:
            added, gone = await markets.refresh(feeder.feed.natives)
        except (RestError, MetadataError, SymbolError) as error:
            logger.warning("cannot get the list of markets, retrying later: %s", error)
            continue
        if added:
            logger.info("new markets: %s", ", ".join(instrument.symbol for instrument in added))
            if recorder is not None:
                recorder.on_instruments(added)
            feeder.add(added)
        for native in gone:
            logger.info("%s is delisted", native)
            feeder.drop(native)


def _summary(feeder: Feeder) -> str:
    states = list(feeder.feed.states().values())
    return f"{states.count('live')} of {len(states)} books live"


async def _report(feeder: Feeder) -> None:
    """Log each change of the number of live books, else a status line every _STATUS_INTERVAL seconds."""
    logger.info("feeder %s starts with %d symbols", feeder.id, len(feeder.feed.natives))
    logged_at, logged_live, logged_updates, warned = time.monotonic(), -1, 0, False
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL)
        states = list(feeder.feed.states().values())
        live, now, updates = states.count("live"), time.monotonic(), feeder.feed.counters().updates
        if not updates and not feeder.feed.connected and not warned:
            logger.warning("cannot reach the exchange, retrying; `make demo` runs without it")
            warned = True
        if live != logged_live or now - logged_at >= _STATUS_INTERVAL:
            rate = (updates - logged_updates) / (now - logged_at)
            rejected = "" if feeder.publisher.healthy else ", but Redis does not accept all of them"
            logger.info("%d of %d books live, %.0f updates/s%s", live, len(states), rate, rejected)
            logged_at, logged_live, logged_updates = now, live, updates
