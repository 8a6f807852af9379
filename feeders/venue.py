"""What shared code may expect of any exchange."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from bookbus.feeders.books.events import Event, SnapshotNeeded, Topic
from bookbus.feeders.books.history import BookHistory
from bookbus.feeders.books.order_book import DepthSnapshot
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.schemas.instruments import Exchange, Instrument, SymbolError, exchange_of, guess_instrument

if TYPE_CHECKING:
    from bookbus.feeders.books.arbitration import LineArbiter
    from bookbus.feeders.rest_client import RestClient

FeedMode = Literal["diff", "partial"]


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What is wanted of an exchange. `depth` is levels a side; `snapshot_limit` None leaves it to the venue."""

    mode: FeedMode = "diff"
    depth: int = 20
    topics: frozenset[Topic] = frozenset({"book"})
    snapshot_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One control message; `request_id` is what its acknowledgement will carry, None where none ever comes."""

    request_id: int | None
    text: str


class BestPrices(NamedTuple):
    """What an exchange names as the best prices of a symbol; None for an empty side."""

    bid: float | None
    ask: float | None


class VenueProtocol(Protocol):
    """Bytes in, events out: everything a venue's frames mean, without a socket or a clock."""

    race: "LineArbiter | None"
    """Where each update of a book is noted when several connections bring the same."""

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book or quote is; None while there is none to trust."""

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        """Whether the book or quote may be older than what its lines brought."""

    def subscribe(self, natives: Sequence[str] | None = None) -> list[Request]:
        """The control messages that ask for everything wanted of these symbols, None for all."""

    def line_up(self, line: int) -> None:
        """From now on this connection brings every update."""

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""

    def snapshot_requested(self, native: str) -> None:
        """The request for a snapshot leaves now: updates from here on may have to follow its answer."""

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """What the answer to a snapshot request says. Raises WebSocketProtocolError if it makes no sense."""

    def record(self, native: str) -> BookHistory | None:
        """Keep what a book built from changes goes through from now on; None while there is none to trust."""

    def invalidate(self, native: str, reason: str) -> Sequence[Event]:
        """Somebody knows that a recorded book is not the exchange's."""

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """What an HTTP answer of a recording says."""


class VenueAudit(Protocol):
    """What an exchange answers that books built from its changes can be held against."""

    @property
    def levels(self) -> int:
        """Levels a side of a cheap snapshot."""

    def read_book(self, body: bytes) -> DepthSnapshot:
        """The book in the answer to a snapshot request. Raises WebSocketProtocolError if there is none."""

    async def fetch_best_prices(self, rest: "RestClient") -> Mapping[str, BestPrices]:
        """The best prices now, by native symbol. Raises RestError."""


class Venue(Protocol):
    """Everything else shared code needs to know of an exchange; `VENUE` in its `<venue>_ws_adapter` module."""

    @property
    def exchange(self) -> Exchange:
        """Its id and spelling."""

    @property
    def ws_url(self) -> str:
        """Where its public sockets are."""

    @property
    def rest_url(self) -> str:
        """Where its public requests go."""

    @property
    def lifetime(self) -> float | None:
        """Seconds after which a connection should be replaced; None where the exchange sets no limit."""

    @property
    def modes(self) -> Sequence[FeedMode]:
        """Feed modes it offers, the default first."""

    @property
    def topics(self) -> Sequence[Topic]:
        """Topics it offers."""

    @property
    def audit(self) -> VenueAudit | None:
        """What its books are held against; None where that is not possible or needless."""

    def stream_url(self, ws_url: str) -> str:
        """The address of a connection below a base address."""

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions) -> VenueProtocol:
        """The pure core for these symbols, None for whatever a recording holds. Raises ValueError for bad options."""

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        """The symbols of each connection that the exchange's limits ask for."""

    def rest(self, rest_url: str, timeout: float) -> "RestClient":
        """Requests within the exchange's limits."""

    async def fetch_snapshot(self, rest: "RestClient", need: SnapshotNeeded) -> tuple[str, bytes]:
        """Address and answer of a snapshot request. Raises RestError."""

    async def fetch_metadata(self, rest: "RestClient") -> bytes:
        """What the exchange says of its instruments. Raises RestError."""

    async def fetch_turnover(self, rest: "RestClient") -> dict[str, float]:
        """Turnover of the last 24 hours in the quote asset, by native symbol. Raises RestError."""

    def instruments(self, metadata: bytes) -> list[Instrument]:
        """The instruments in a metadata answer. Raises MetadataError if it is none."""


def require_symbol(exchange_id: str, native: str) -> str:
    """The name, as it is. Raises WebSocketProtocolError for what can be no symbol of the exchange."""
    try:
        guess_instrument(exchange_of(exchange_id), native)
    except SymbolError as error:
        raise WebSocketProtocolError(str(error)) from error
    return native


def venue_of(exchange_id: str) -> Venue:
    """The venue with this id, found by the name of its module. Raises SymbolError for an unknown one."""
    venue: Venue = adapter_module(exchange_of(exchange_id).id).VENUE
    return venue


def adapter_module(exchange_id: str) -> ModuleType:
    """Where a venue's sockets, requests and metadata are: it holds `VENUE` and `ADAPTER`."""
    return import_module(f"bookbus.feeders.exchanges.{exchange_id}_ws_adapter")
