"""What shared code may expect of any exchange."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from feeders.events import Event, Topic

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
    natives: tuple[str, ...]


class VenueProtocol(Protocol):
    """Bytes in, events out: everything a venue's frames mean, without a socket or a clock."""

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book or quote is; None while there is none to trust."""

    def subscribe(self) -> list[Request]:
        """The control messages that ask for everything wanted."""

    def open_line(self, line: int) -> None:
        """From now on this connection brings every update."""

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""

    def receive_answer(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """What the answer to a snapshot request says. Raises WebSocketProtocolError if it makes no sense."""

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """What an HTTP answer of a recording says."""
