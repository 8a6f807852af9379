"""Names of all Redis keys and channels."""

from dataclasses import dataclass

from bookbus.schemas.redis_url import parse_redis_url

DEFAULT_PREFIX = "md"


@dataclass(frozen=True, slots=True)
class BookName:
    """Exchange id and standard symbol in the name of a book's key."""

    exchange: str
    symbol: str


@dataclass(frozen=True, slots=True)
class RedisNames:
    """Names with one prefix in one database of a server.

    Redis separates the keys of its databases, but not the channels. In database 0 a hash and its channel have the same
    name, hence the same cluster slot; in another database the channel's name also has the number of the database.
    """

    prefix: str = DEFAULT_PREFIX
    database: int = 0

    @classmethod
    def on(cls, url: str, prefix: str = DEFAULT_PREFIX) -> "RedisNames":
        """The names in the database of a Redis URL. Raises ValueError for an invalid URL or prefix."""
        return cls(prefix, parse_redis_url(url).login.database)

    def __post_init__(self) -> None:
        if not self.prefix or any(character in self.prefix for character in " \t\r\n:{}*?[]\\@"):
            raise ValueError(f"prefix {self.prefix!r}: use letters, digits, '-', '_' or '.'")

    def book(self, exchange: str, symbol: str) -> str:
        """Hash of an order book."""
        return f"{self.prefix}:book:{exchange}:{symbol}"

    def quote(self, exchange: str, symbol: str) -> str:
        """Hash of a best bid and offer."""
        return f"{self.prefix}:quote:{exchange}:{symbol}"

    def trades(self, exchange: str, symbol: str) -> str:
        """Stream of trades."""
        return f"{self.prefix}:trades:{exchange}:{symbol}"

    def recent_trades(self, exchange: str, symbol: str) -> str:
        """Hash by which copies of a trade are recognised; in the cluster slot of its stream."""
        return f"{self.prefix}:recent:{{{self.trades(exchange, symbol)}}}"

    def of(self, topic: str, exchange: str, symbol: str) -> str:
        """Hash of a topic, `book` or `quote`."""
        return f"{self.prefix}:{topic}:{exchange}:{symbol}"

    def channel(self, name: str) -> str:
        """The channel on which changes of this hash are published."""
        return name.replace(":", f"@{self.database}:", 1) if self.database else name

    @property
    def books(self) -> str:
        """Set of the names of all published books."""
        return f"{self.prefix}:books"

    def network(self, exchange: str) -> str:
        """Hash of the claim of an exchange's network."""
        return f"{self.prefix}:network:{exchange}"

    def feeder(self, feeder_id: str) -> str:
        """Hash of a feeder's heartbeat."""
        return f"{self.prefix}:feeder:{feeder_id}"

    @property
    def feeders(self) -> str:
        """Channel of all feeders' heartbeats."""
        return self.channel(f"{self.prefix}:feeders")

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
