"""Names of all Redis keys and channels."""

from dataclasses import dataclass

DEFAULT_PREFIX = "md"


@dataclass(frozen=True, slots=True)
class BookName:
    """Exchange id and standard symbol in the name of a book's key."""

    exchange: str
    symbol: str


@dataclass(frozen=True, slots=True)
class RedisNames:
    """Names with one prefix. A hash and its channel have the same name, hence the same cluster slot."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not self.prefix or any(character in self.prefix for character in " \t\r\n:{}*?[]\\"):
            raise ValueError(f"prefix {self.prefix!r}: use letters, digits, '-', '_' or '.'")

    def book(self, exchange: str, symbol: str) -> str:
        """Hash and channel of an order book."""
        return f"{self.prefix}:book:{exchange}:{symbol}"

    def quote(self, exchange: str, symbol: str) -> str:
        """Hash and channel of a best bid and offer."""
        return f"{self.prefix}:quote:{exchange}:{symbol}"

    def trades(self, exchange: str, symbol: str) -> str:
        """Stream of trades."""
        return f"{self.prefix}:trades:{exchange}:{symbol}"

    def of(self, topic: str, exchange: str, symbol: str) -> str:
        """Hash and channel of a topic, `book` or `quote`."""
        return f"{self.prefix}:{topic}:{exchange}:{symbol}"

    @property
    def books(self) -> str:
        """Set of the names of all published books."""
        return f"{self.prefix}:books"

    def feeder(self, feeder_id: str) -> str:
        """Hash of a feeder's heartbeat."""
        return f"{self.prefix}:feeder:{feeder_id}"

    @property
    def feeders(self) -> str:
        """Channel of all feeders' heartbeats."""
        return f"{self.prefix}:feeders"

    def consumer(self, consumer_id: str) -> str:
        """Hash of a reader's heartbeat."""
        return f"{self.prefix}:consumer:{consumer_id}"

    def parse_book(self, name: str) -> BookName | None:
        """Exchange and symbol of a book's key; None if `name` is no book's key with this prefix."""
        head = f"{self.prefix}:book:"
        exchange, separator, symbol = name.removeprefix(head).partition(":")
        if not name.startswith(head) or not exchange or not separator or not symbol:
            return None
        return BookName(exchange, symbol)
