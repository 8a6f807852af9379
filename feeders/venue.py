"""The interface of an exchange."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Refused, SnapshotNeeded, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthSnapshot, DepthUpdate
from bookbus.feeders.books.synchronizer import BookSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.schemas.instruments import Exchange, Instrument, SymbolError, exchange_of, guess_instrument

if TYPE_CHECKING:
    from bookbus.feeders.rest_client import RestClient

FeedMode = Literal["diff", "partial"]


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """Options of a feed. `depth` is levels a side; `snapshot_limit` None leaves it to the venue."""

    mode: FeedMode = "diff"
    depth: int = 20
    topics: frozenset[Topic] = frozenset({"book"})
    snapshot_limit: int | None = None


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """`request_id` is what its acknowledgement will carry, None where none ever comes."""

    request_id: int | None
    text: str
    natives: tuple[str, ...] = ()
    """Symbols whose streams work once it is acknowledged."""


class BestPrices(NamedTuple):
    """The best prices of a symbol; None for an empty side."""

    bid: float | None
    ask: float | None


class DepthMessage(msgspec.Struct, frozen=True, gc=False):
    """Changes of one book or quote, or a whole one: what its synchroniser takes."""

    native: str
    topic: Topic
    stream: str
    """Name of the exchange's stream. Several streams may carry the same book."""
    update: DepthUpdate


Message = DepthMessage | TradeHappened | Acknowledged | Refused | ClosingSoon
"""The content of one part of a frame."""


class VenueProtocol(Protocol):
    """The messages of an exchange for some symbols: decoded and encoded, without state, socket or clock."""

    @property
    def natives(self) -> Sequence[str]:
        """The symbols asked for, each once; empty if any symbol is taken."""

    @property
    def numbers(self) -> re.Pattern[bytes] | None:
        """Finds prices and quantities in a text, to see whether float64 keeps them; None where that is not checked."""

    def streams(self, native: str) -> Mapping[Topic, str]:
        """Name of the stream of each wanted topic of a symbol."""

    def subscribe(
        self, natives: Sequence[str], ids: Iterator[int], *, again: Sequence[str] = ()
    ) -> list[ControlMessage]:
        """The control messages for these symbols, or for those in `again`, which got no book by the last ones."""

    def decode(self, frame: bytes) -> Sequence[Message]:
        """The content of one WebSocket message. Raises WebSocketProtocolError if it is invalid."""

    def synchronizer(self, native: str, topic: Topic, stream: str | None, lines: set[int]) -> BookSync:
        """A new synchroniser for a book or quote, which reads the working connections from `lines`.

        `stream` is the one that carries it, None if that is not known yet.
        """


class VenueSnapshots(Protocol):
    """Book snapshots by request, for books that are built from one and the changes that follow."""

    def decode(self, body: bytes) -> DepthSnapshot:
        """The book in an answer. Raises WebSocketProtocolError if there is none."""

    def request_of(self, url: str) -> tuple[str, int] | None:
        """Symbol and levels a side of a recorded request, None for a request of another kind.

        Raises WebSocketProtocolError for what is no address.
        """

    async def fetch(self, rest: "RestClient", need: SnapshotNeeded) -> tuple[str, bytes]:
        """Address and answer of a snapshot request. Raises RestError."""


class VenueAudit(Protocol):
    """Data to compare books with, where snapshots carry the update ids of the stream."""

    levels: int
    """Levels a side of a cheap snapshot."""

    async def fetch_best_prices(self, rest: "RestClient") -> Mapping[str, BestPrices]:
        """The best prices now, by native symbol. Raises RestError."""


class Venue(Protocol):
    """An exchange; `VENUE` in its `<venue>_ws_adapter` module. Explicit subclasses inherit the defaults."""

    exchange: Exchange
    """Its id and spelling."""
    ws_url: str
    """Where its public sockets are."""
    rest_url: str
    """Where its public requests go."""
    networks: Mapping[str, Sequence[str]]
    """The hosts of its public networks by their name, `live` and test networks."""
    lifetime: float | None = None
    """Seconds after which a connection should be replaced; None where the exchange sets no limit."""
    modes: Sequence[FeedMode]
    """Feed modes it offers, the default first."""
    topics: Sequence[Topic]
    """Topics it offers."""
    keepalive: str | None = None
    """The message that keeps a connection open, where a WebSocket ping is not enough."""
    snapshots: VenueSnapshots | None = None
    """Snapshots by request; None where the stream carries whole books."""
    audit: VenueAudit | None = None
    """The data that its books are compared with; None where that is impossible or unnecessary."""

    def stream_url(self, ws_url: str) -> str:
        """The address of a connection below a base address."""

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> VenueProtocol:
        """The messages of these symbols, None for any symbol; `recorded` takes streams that were not asked for too.

        Raises ValueError for options that the exchange does not have.
        """

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        """The symbols of each connection that the exchange's limits ask for."""

    def rest(self, rest_url: str, timeout: float) -> "RestClient":
        """Requests within the exchange's limits."""

    async def fetch_metadata(self, rest: "RestClient") -> bytes:
        """The exchange's list of instruments, undecoded. Raises RestError."""

    async def fetch_turnover(self, rest: "RestClient") -> dict[str, float]:
        """Turnover of the last 24 hours in the quote asset, by native symbol. Raises RestError."""

    def instruments(self, metadata: bytes) -> list[Instrument]:
        """The instruments in a metadata answer. Raises MetadataError if it is none."""


@lru_cache(10_000)
def require_symbol(exchange_id: str, native: str) -> str:
    """Returns the name unchanged. Raises WebSocketProtocolError if it cannot be a symbol of the exchange."""
    try:
        guess_instrument(exchange_of(exchange_id), native)
    except SymbolError as error:
        raise WebSocketProtocolError(str(error)) from error
    return native


def venue_of(exchange_id: str) -> Venue:
    """The venue with this id, found by the name of its module. Raises SymbolError for an unknown one."""
    module = import_module(f"bookbus.feeders.exchanges.{exchange_of(exchange_id).id}_ws_adapter")
    venue: Venue = module.VENUE
    return venue
