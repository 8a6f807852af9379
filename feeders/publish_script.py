"""The publish script, and the bytes of the commands that call it."""

import hashlib
from functools import cache
from pathlib import Path

from feeders.conflator import Submission
from feeders.resp import pack_argument, pack_command
from schemas.snapshot import Levels
from schemas.wire import encode_body

REFUSED, ACCEPTED, CONFIRMED = 0, 1, 2

_BEST_OF_NONE = ("", "")


@cache
def script_text(*, sharded: bool = False) -> bytes:
    """The script; `sharded` for the channels of a cluster."""
    text = Path(__file__).with_name("publish.lua").read_bytes()
    return text.replace(b"'PUBLISH'", b"'SPUBLISH'") if sharded else text


def script_sha(*, sharded: bool = False) -> str:
    """The name under which the server keeps the script."""
    return hashlib.sha1(script_text(sharded=sharded), usedforsecurity=False).hexdigest()


class BookKey:
    """One book's place on the bus: packs the submissions of one feeder to it."""

    __slots__ = ("_feeder_id", "_prefixes", "name", "newest", "owes_new")

    def __init__(self, name: str, feeder_id: str, sha: str) -> None:
        self.name = name
        self.newest: Submission | None = None
        """What was submitted last, sent or not."""
        self.owes_new = False
        """Whether new levels may not have reached the server: then the book cannot just be confirmed."""
        self._feeder_id = feeder_id
        # All that stays the same from one submission to the next.
        self._prefixes = {
            kind: b"*14\r\n" + b"".join(map(pack_argument, ("EVALSHA", sha, 1, name, kind, feeder_id)))
            for kind in ("new", "again", "state")
        }

    def pack(self, submission: Submission, published_us: int) -> bytes:
        """The command for the server."""
        book = submission.book
        body = encode_body(book, self._feeder_id, published_us)
        bid, bid_quantity = _best(book.bids)
        ask, ask_quantity = _best(book.asks)
        update_id, published, state = str(book.update_id), str(published_us), book.state
        arguments = (
            f"${len(update_id)}\r\n{update_id}\r\n${len(state)}\r\n{state}\r\n${len(published)}\r\n{published}\r\n"
            f"${len(bid)}\r\n{bid}\r\n${len(bid_quantity)}\r\n{bid_quantity}\r\n"
            f"${len(ask)}\r\n{ask}\r\n${len(ask_quantity)}\r\n{ask_quantity}\r\n${len(body)}\r\n"
        )
        return b"%b%b%b\r\n" % (self._prefixes[submission.kind], arguments.encode(), body)


def load_command(*, sharded: bool = False) -> bytes:
    """The command that makes the server keep the script."""
    return pack_command("SCRIPT", "LOAD", script_text(sharded=sharded))


def _best(levels: Levels) -> tuple[str, str]:
    if not levels:
        return _BEST_OF_NONE
    price, quantity = levels[0]
    return repr(price), repr(quantity)
