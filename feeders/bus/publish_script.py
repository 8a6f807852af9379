"""The scripts that write books and trades, and the bytes of the commands that call them."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.connection import pack_argument, pack_command
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade
from bookbus.schemas.wire import encode_body

SubmissionKind = Literal["new", "again", "state"]

REFUSED, ACCEPTED, CONFIRMED = 0, 1, 2
CLAIMED = 3
"""Refused, because a feeder with another claim owns the book."""

_NO_LEVEL = (None, None)
# The bytes between two arguments, by the length of the second.
_MARKS = [b"\r\n$%d\r\n" % length for length in range(32)]
_STATES = {state: _MARKS[len(state)] + state.encode() for state in ("live", "suspect", "closed")}
_to_json = msgspec.json.Encoder().encode


@cache
def script_text(*, sharded: bool = False, database: int = 0) -> bytes:
    """The script for books in this database; `sharded` for the channels of a cluster."""
    text = Path(__file__).with_name("publish.lua").read_bytes()
    if database:
        # The same name as `RedisNames.channel` gives. The script for database 0 does not have to compute one.
        channel = b"string.gsub(key, ':', '@%d:', 1)" % database
        text = text.replace(b"redis.call('PUBLISH', key,", b"redis.call('PUBLISH', (%b)," % channel)
    return text.replace(b"'PUBLISH'", b"'SPUBLISH'") if sharded else text


def script_sha(*, sharded: bool = False, database: int = 0) -> str:
    """The digest that EVALSHA calls the script by."""
    return hashlib.sha1(script_text(sharded=sharded, database=database), usedforsecurity=False).hexdigest()


class Submission(msgspec.Struct, frozen=True):
    """One book, and why it is submitted.

    `new`: just decoded. `again`: unchanged, and its connection has received data since. `state`: the book is no longer
    live; `book.state` is the new state.
    """

    kind: SubmissionKind
    topic: Topic
    book: OrderBookSnapshot


@dataclass(frozen=True, slots=True)
class BookClaim:
    """What all feeders of a book must have equal; an empty network or mode, or a depth of 0, is not compared."""

    network: str = ""
    mode: str = ""
    depth: int = 0

    def of(self, topic: Topic) -> "BookClaim":
        """The claim on a book of this topic. A quote is the same in every mode."""
        return self if topic == "book" else BookClaim(self.network, "", 1)

    @property
    def arguments(self) -> tuple[str, str, str]:
        return self.network, self.mode, str(self.depth or "")


class BookKey:
    """One book's key on Redis: packs the submissions of one feeder to it. The outbox keeps its state here."""

    __slots__ = (
        *("_claim", "_fallen", "_fallen_prefixes", "_feeder_id", "_prefixes"),
        *("highest", "lost", "name", "newest", "owes_new", "server", "symbol", "topic"),
    )

    def __init__(
        self,
        name: str,
        feeder_id: str,
        sha: str,
        *,
        topic: Topic = "book",
        symbol: str = "",
        claim: BookClaim | None = None,
        fallen: "set[BookKey] | None" = None,
    ) -> None:
        """`fallen` gets this key when a lower id than before is sent."""
        self.name = name
        self.topic = topic
        self.symbol = symbol
        self.highest = 0
        """The highest id that was sent. While a lower one is sent after a loss, the script is told."""
        self.lost = False
        """Whether the book was lost after this id."""
        self.newest: Submission | None = None
        """The last submission, sent or not."""
        self.owes_new = False
        """Whether new levels may not have reached the server: then the book cannot just be confirmed."""
        self.server: HostPort | None = None
        """The server that it is written to; None while none is known to serve its slot."""
        self._feeder_id = feeder_id
        self._fallen = fallen if fallen is not None else set()
        # The arguments that are the same in every submission.
        self._prefixes, self._fallen_prefixes = (
            {
                kind: b"*%d\r\n" % count + b"".join(map(pack_argument, ("EVALSHA", sha, 1, name, kind, feeder_id)))[:-2]
                for kind in ("new", "again", "state")
            }
            for count in (17, 18)
        )
        self._claim = b"\r\n" + b"".join(map(pack_argument, (claim or BookClaim()).of(topic).arguments))

    def pack(self, submission: Submission, published_us: int) -> bytes:
        book = submission.book
        body = encode_body(book, self._feeder_id, published_us)
        bids, asks = book.bids, book.asks
        # One pass of the JSON encoder writes six numbers in half the time of six times repr.
        numbers = (book.update_id, published_us, *(bids[0] if bids else _NO_LEVEL), *(asks[0] if asks else _NO_LEVEL))
        texts = _to_json(numbers)[1:-1]
        if not bids or not asks:
            texts = texts.replace(b"null", b"")
        update_id, published, bid, bid_quantity, ask, ask_quantity = texts.split(b",")
        prefixes, last = self._prefixes, self._claim
        if submission.kind == "state":
            self.lost = True
        elif book.update_id >= self.highest:
            self.highest, self.lost = book.update_id, False
        elif self.lost:
            self._fallen.add(self)
            prefixes, last = self._fallen_prefixes, last + pack_argument(self.highest)
        return b"".join(
            (
                *(prefixes[submission.kind], _MARKS[len(update_id)], update_id, _STATES[book.state]),
                *(_MARKS[len(published)], published, _MARKS[len(bid)], bid, _MARKS[len(bid_quantity)], bid_quantity),
                *(_MARKS[len(ask)], ask, _MARKS[len(ask_quantity)], ask_quantity),
                *(b"\r\n$%d\r\n" % len(body), body, last),
            )
        )


class TradeStreamKey:
    """One symbol's stream of trades on Redis: packs the trades of a feeder for it."""

    __slots__ = ("_prefix", "name")

    def __init__(self, names: RedisNames, exchange: str, symbol: str) -> None:
        self.name = names.trades(exchange, symbol)
        # The arguments that are the same for every trade; the mark and six fields follow.
        keys = (self.name, names.recent_trades(exchange, symbol))
        self._prefix = b"*12\r\n" + b"".join(
            pack_argument(argument) for argument in ("EVALSHA", _trade_script_sha(), 2, *keys)
        )

    def pack(self, trade: Trade) -> bytes:
        """The command for the server."""
        fields = trade.fields()
        # What every feeder of this trade has equal. Only an id that comes again with other values is another trade.
        text = " ".join(value for name, value in fields.items() if name != "received_us")
        mark = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return self._prefix + pack_argument(mark) + b"".join(map(pack_argument, fields.values()))


@cache
def trade_script_text() -> bytes:
    """The script that adds a trade to its stream."""
    return Path(__file__).with_name("trade.lua").read_bytes()


@cache
def _trade_script_sha() -> str:
    return hashlib.sha1(trade_script_text(), usedforsecurity=False).hexdigest()


def load_trade_command() -> bytes:
    """The SCRIPT LOAD command of the script for trades."""
    return pack_command("SCRIPT", "LOAD", trade_script_text())


def load_command(*, sharded: bool = False, database: int = 0) -> bytes:
    return pack_command("SCRIPT", "LOAD", script_text(sharded=sharded, database=database))
