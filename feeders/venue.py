"""The interface of an exchange."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from bookbus.feeders.books.events import (
    Acknowledged,
    ClosingSoon,
    Ignored,
    Refused,
    SnapshotNeeded,
    Topic,
    TradeHappened,
)
from bookbus.feeders.books.order_book import DepthSnapshot, DepthUpdate
from bookbus.feeders.books.synchronizer import BookSync
from bookbus.feeders.errors import MetadataError, WebSocketProtocolError
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.instruments import Exchange, Instrument, TradingStatus, exchange_of, is_symbol
from bookbus.schemas.snapshot import Levels

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


class Top(NamedTuple):
    """The best levels of a symbol, as many a side as the exchange was asked for (`levels`) or as there are."""

    bids: Levels
    asks: Levels
    levels: int
    update_id: int | None = None
    """None where it cannot be compared with the stream's."""
    exchange_us: int | None = None
    """When the book last changed, where the exchange says it."""


class MarketStatus(NamedTuple):
    """Whether a market trades. `word` is the exchange's own status, empty for plain trading."""

    status: TradingStatus
    word: str = ""


DELISTED = MarketStatus("delisted", "not in the list of markets")

_LONGEST_WORD = 80

_Entry = TypeVar("_Entry")


class ListedMarket(msgspec.Struct):
    """One market in an exchange's list, with the exchange's word for its trading status."""

    symbol: str
    status: Any = None


class DepthMessage(msgspec.Struct, frozen=True, gc=False):
    """Changes of one book or quote, or a whole one: what its synchroniser takes."""

    native: str
    topic: Topic
    stream: str
    """Name of the exchange's stream. Several streams may carry the same book."""
    update: DepthUpdate


Message = DepthMessage | TradeHappened | Acknowledged | Refused | ClosingSoon | Ignored
"""The content of one part of a frame."""


class InstrumentList(list[Instrument]):
    """The instruments of an exchange's list, each pair and each native symbol once."""

    def __init__(self, instruments: Iterable[Instrument] = (), skipped: Mapping[str, str] | None = None) -> None:
        """Of two markets of one pair the one with the usual spelling is taken, else one that trades, else the first."""
        self.skipped: dict[str, str] = dict(skipped or {})
        """Entries that were left out: native symbol, or how the entry begins, and the reason."""
        found = list(instruments)
        taken: dict[str, Instrument] = {}
        for instrument in sorted(found, key=_preference):
            exchange = exchange_of(instrument.exchange)
            keys = {f"symbol {instrument.symbol.upper()}", f"native {instrument.native.upper()}"}
            others = [taken[key] for key in sorted(keys) if key in taken]
            if not instrument.native or not is_symbol(exchange, f"{instrument.base}/{instrument.quote}"):
                self.skipped[instrument.native] = f"{instrument.base!r} and {instrument.quote!r} are no pair of assets"
            elif others:
                same = others[0]
                self.skipped[instrument.native] = f"{same.native} is listed as {same.symbol} already"
            else:
                taken |= dict.fromkeys(keys, instrument)
        chosen = set(map(id, taken.values()))
        super().__init__(instrument for instrument in found if id(instrument) in chosen)

    def checked(self) -> "InstrumentList":
        """Itself. Raises MetadataError if it is empty, which is no list of an exchange that works."""
        if not self:
            reasons = "".join(f": {name}: {reason}" for name, reason in list(self.skipped.items())[:1])
            raise MetadataError(f"not a list of markets{reasons}")
        return self


def _preference(instrument: Instrument) -> tuple[bool, bool]:
    spelling = exchange_of(instrument.exchange).native(instrument.base, instrument.quote)
    return instrument.native != spelling, instrument.status == "halted"


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
    """Data to compare books with, where snapshots carry ids that updates carry too."""

    levels: int
    """Levels a side of a cheap snapshot."""
    snapshots: VenueSnapshots | None
    """Snapshots for comparisons, numbered as histories are; None for the venue's own."""
    lead: float
    """Seconds by which a snapshot may be older than what the stream has delivered."""

    async def fetch_best_prices(self, rest: "RestClient") -> Mapping[str, BestPrices]:
        """The best prices now, by native symbol. Raises RestError."""


class VenueTops(Protocol):
    """The best levels by request: what a silent stream is compared with."""

    async def fetch(self, rest: "RestClient", natives: Sequence[str]) -> Mapping[str, Top]:
        """The best levels now of these native symbols, exact for few, one level a side for many. Raises RestError.

        Symbols that the exchange does not name are left out.
        """


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
    tops: VenueTops | None = None
    """The best levels by request; None where there are none."""

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

    async def fetch_trading(self, rest: "RestClient", natives: Sequence[str]) -> Mapping[str, MarketStatus]:
        """Whether these markets trade now, by native symbol, without those of which the exchange says nothing.

        Few requests, whatever the number of symbols. Raises RestError or MetadataError.
        """
        return {}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        """The instruments in a metadata answer, a `InstrumentList` where entries may be left out.

        Raises MetadataError if it is none.
        """


def level(price: float, quantity: float) -> Levels:
    """A side of one level; zeros stand for an empty side."""
    return ((price, quantity),) if price and quantity else ()


def listed_markets(body: bytes, entry: type[_Entry], *path: str) -> list[_Entry]:
    """The entries of the list of markets below `path` in an answer, without those that are no `entry`.

    Raises MetadataError for an answer without markets: an exchange that lists none at all is not believed.
    """
    try:
        raw = msgspec.Raw(body)
        for name in path:
            raw = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[name]
        listed = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (*DECODE_ERRORS, KeyError) as error:
        raise MetadataError(f"not a list of markets: {error}") from error
    markets = []
    for one in listed:
        with suppress(*DECODE_ERRORS):
            markets.append(msgspec.json.decode(one, type=entry))
    if not markets:
        raise MetadataError("a list without markets")
    return markets


def market_status(statuses: Mapping[str, TradingStatus], word: object) -> MarketStatus:
    """What the exchange's word means, by a table of its words; `unknown` for a word that is not in it."""
    status = statuses.get(word, "unknown") if isinstance(word, str) else "unknown"
    return MarketStatus(status, "" if status == "trading" else str(word)[:_LONGEST_WORD])


@lru_cache(10_000)
def require_symbol(exchange_id: str, native: str) -> str:
    """Returns the name unchanged. Raises WebSocketProtocolError if it cannot be a symbol of the exchange."""
    if not is_symbol(exchange_of(exchange_id), native):
        raise WebSocketProtocolError(f"{native!r} is no symbol of {exchange_id}")
    return native


def venue_of(exchange_id: str) -> Venue:
    """The venue with this id, found by the name of its module. Raises SymbolError for an unknown one."""
    module = import_module(f"bookbus.feeders.exchanges.{exchange_of(exchange_id).id}_ws_adapter")
    venue: Venue = module.VENUE
    return venue
