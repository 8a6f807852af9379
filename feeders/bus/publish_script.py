"""The publish script, and the bytes of the commands that call it."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.connection import pack_argument, pack_command
from bookbus.schemas.redis_url import HostPort
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.wire import encode_body

SubmissionKind = Literal["new", "again", "state"]

REFUSED, ACCEPTED, CONFIRMED = 0, 1, 2

_NO_LEVEL = (None, None)
# The bytes between two arguments, by the length of the second.
_MARKS = [b"\r\n$%d\r\n" % length for length in range(32)]
_STATES = {state: _MARKS[len(state)] + state.encode() for state in ("live", "suspect", "closed")}
_to_json = msgspec.json.Encoder().encode


@cache
def script_text(*, sharded: bool = False) -> bytes:
    """The script; `sharded` for the channels of a cluster."""
    text = Path(__file__).with_name("publish.lua").read_bytes()
    return text.replace(b"'PUBLISH'", b"'SPUBLISH'") if sharded else text


def script_sha(*, sharded: bool = False) -> str:
    """The digest that EVALSHA calls the script by."""
    return hashlib.sha1(script_text(sharded=sharded), usedforsecurity=False).hexdigest()


class Submission(msgspec.Struct, frozen=True):
    """One book, and why it is submitted.

    `new`: just decoded. `again`: unchanged, and its connection has received data since. `state`: the book is no longer
    live; `book.state` is the new state.
    """

    kind: SubmissionKind
    topic: Topic
    book: OrderBookSnapshot


class BookKey:
    """One book's key on Redis: packs the submissions of one feeder to it. The outbox keeps its state here."""

    __slots__ = ("_feeder_id", "_prefixes", "name", "newest", "owes_new", "server")

    def __init__(self, name: str, feeder_id: str, sha: str) -> None:
        self.name = name
        self.newest: Submission | None = None
        """The last submission, sent or not."""
        self.owes_new = False
        """Whether new levels may not have reached the server: then the book cannot just be confirmed."""
        self.server: HostPort | None = None
        """The server that it is written to; None while none is known to serve its slot."""
        self._feeder_id = feeder_id
        # The arguments that are the same in every submission.
        self._prefixes = {
            kind: b"*14\r\n" + b"".join(map(pack_argument, ("EVALSHA", sha, 1, name, kind, feeder_id)))[:-2]
            for kind in ("new", "again", "state")
        }

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
        return b"".join(
            (
                *(self._prefixes[submission.kind], _MARKS[len(update_id)], update_id, _STATES[book.state]),
                *(_MARKS[len(published)], published, _MARKS[len(bid)], bid, _MARKS[len(bid_quantity)], bid_quantity),
                *(_MARKS[len(ask)], ask, _MARKS[len(ask_quantity)], ask_quantity),
                *(b"\r\n$%d\r\n" % len(body), body, b"\r\n"),
            )
        )


def load_command(*, sharded: bool = False) -> bytes:
    return pack_command("SCRIPT", "LOAD", script_text(sharded=sharded))
