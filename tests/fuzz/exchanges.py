"""Targets: what exchanges send, taken by a feed as a feeder has it."""

from collections.abc import Callable, Sequence
from functools import cache

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import SnapshotNeeded, Topic
from bookbus.feeders.errors import MetadataError, WebSocketProtocolError
from bookbus.feeders.feed import Feed
from bookbus.feeders.venue import FeedMode, FeedOptions, venue_of
from bookbus.schemas import wire
from bookbus.schemas.instruments import InstrumentRegistry, SymbolError, exchange_of
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade, trade_of
from tests.fuzz.target import Target

_MOST_LINES = 64
_NOW_US = 1_700_000_000_000_000

_WORDS = (
    *(b'"e":"depthUpdate"', b'"lastUpdateId":', b'"bids":[]', b'"asks":[]', b'"b":[]', b'"a":[]', b'"U":', b'"u":'),
    *(b'["1.0","0"]', b'["0","1"]', b'["-1","1"]', b"\n", b"\n>BTCUSDT ", b"\n!\n", b"\n2", b'"result":null'),
    *(b'"error":{"code":2,"msg":"x"}', b'{"result":null,"id":1}', b'"stream":"btcusdt@depth@100ms"', b"@trade"),
    *(b'"stream":"btcusdt@depth20@100ms"', b'"stream":"btcusdt@bookTicker"', b'"stream":"!serverShutdown"'),
    *(b'"type":"orderbook"', b'"ty":"trade"', b'"obu":[]', b'"orderbook_units":[]', b'"error":{"name":"x"}'),
    *(b'"topic":"orderbook.50.BTCUSDT"', b'"type":"snapshot"', b'"type":"delta"', b'"topic":"publicTrade.BTCUSDT"'),
)


class _Snapshots:
    """Requests leave at once; their answers are in the input."""

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        feed.snapshot_requested(need.native)

    def is_pending(self, native: str) -> bool:
        return True

    def answers_soon(self, native: str) -> bool:
        return True


def _feed(exchange: str, natives: Sequence[str] | None, mode: FeedMode, topics: frozenset[Topic]) -> Feed:
    venue, options = venue_of(exchange), FeedOptions(mode, 5, topics)
    return Feed(
        exchange=exchange,
        books=BookSet(venue.protocol(natives, options, recorded=natives is None), venue.snapshots),
        options=options,
        instrument_of=_instrument_of(exchange),
        on_snapshot=_check_snapshot,
        on_trade=_check_trade,
        snapshots=_Snapshots(),
    )


@cache
def _instrument_of(exchange: str):  # type: ignore[no-untyped-def]
    return cache(InstrumentRegistry(exchange_of(exchange), offline=True).resolve)


def _check_snapshot(snapshot: OrderBookSnapshot, _: Topic) -> None:
    """Whatever an exchange sends, what a feeder publishes of it is a book that readers take."""
    assert wire.decode(wire.encode(snapshot)) == snapshot


def _check_trade(trade: Trade) -> None:
    assert trade_of(trade.exchange, trade.symbol, trade.native, f"{trade.trade_id}-0", trade.fields()) == trade


def _conversation(
    exchange: str, natives: Sequence[str], mode: FeedMode, topics: frozenset[Topic]
) -> Callable[[bytes], None]:
    """Each line is a frame; one that begins with `2` came by a second connection, `>NAME ` is the answer to a request,
    `!` the end of the first connection.
    """

    def run(data: bytes) -> None:
        feed = _feed(exchange, natives, mode, topics)
        feed.subscribe()
        feed.line_up(0)
        feed.line_up(2)
        for line in data.split(b"\n")[:_MOST_LINES]:
            match line[:1]:
                case b">":
                    name, _, body = line[1:].partition(b" ")
                    _answer(feed, name.decode(errors="replace"), body)
                case b"!":
                    feed.line_down(0, "the end", _NOW_US)
                    feed.line_up(0)
                case b"2":
                    feed.receive(line[1:], 2, _NOW_US)
                case _:
                    feed.receive(line, 0, _NOW_US)
        feed.line_down(0, "the end", _NOW_US)
        feed.line_down(2, "the end", _NOW_US)

    return run


def _answer(feed: Feed, native: str, body: bytes) -> None:
    try:
        feed.apply_snapshot(native, 100, body, _NOW_US)
    except WebSocketProtocolError:
        return


def _recording(exchange: str, topics: frozenset[Topic]) -> Callable[[bytes], None]:
    """Each line is a frame, or begins with `>` and is the address and the body of an answer."""

    def run(data: bytes) -> None:
        feed = _feed(exchange, None, "diff", topics)
        feed.line_up(0)
        for line in data.split(b"\n")[:_MOST_LINES]:
            if line.startswith(b">"):
                url, _, body = line[1:].partition(b" ")
                feed.receive_recorded(url.decode(errors="replace"), body, _NOW_US)
            else:
                feed.receive(line, 0, _NOW_US)

    return run


def _metadata(exchange: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        InstrumentRegistry(exchange_of(exchange), venue_of(exchange).instruments(data))

    return run


_ALL: frozenset[Topic] = frozenset({"book", "quote", "trades"})
_BOOKS: frozenset[Topic] = frozenset({"book", "trades"})
_BINANCE = ("BTCUSDT", "ETHUSDT")
_METADATA_WORDS = (b'"symbols":[]', b'"filters":[]', b'"status":"TRADING"', b'"market":"KRW-BTC"', b'"baseAsset":""')

TARGETS = (
    Target("binance_diff", _conversation("binance", _BINANCE, "diff", _ALL), (), _WORDS),
    Target("binance_partial", _conversation("binance", _BINANCE, "partial", _ALL), (), _WORDS),
    Target(
        "binance_recorded", _recording("binance", _ALL), (), (*_WORDS, b"\n>https://x/api/v3/depth?symbol=A&limit=")
    ),
    Target("upbit", _conversation("upbit", ("KRW-BTC", "BTC-ETH"), "diff", _BOOKS), (), _WORDS),
    Target("upbit_recorded", _recording("upbit", _BOOKS), (), _WORDS),
    Target("bybit", _conversation("bybit", _BINANCE, "diff", _BOOKS), (), _WORDS),
    *(
        Target(f"{exchange}_metadata", _metadata(exchange), (MetadataError, SymbolError), _METADATA_WORDS)
        for exchange in ("binance", "upbit", "bybit")
    ),
)
