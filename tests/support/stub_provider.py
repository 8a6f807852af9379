"""A provider whose books, ages and connection a test sets."""

from collections.abc import Sequence

from msgspec.structs import replace

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import ConnectionStatus, Counts, Observation
from bookbus.schemas.instruments import InstrumentRegistry, exchange_of
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from tests.support.builders import book


class StubProvider(MarketDataProvider):
    """Books of one exchange; ages do not advance by themselves."""

    def __init__(self, exchange: str, blocking_reads: bool = False) -> None:
        super().__init__()
        self.exchange = exchange
        self.blocking_reads = blocking_reads
        self.calls: list[str] = []
        self.running = False
        self.error = ""
        self.observations: dict[str, Observation] = {}
        self._names = InstrumentRegistry(exchange_of(exchange), offline=True)

    def put(self, symbol: str, bids: Levels, asks: Levels, *, age: float = 0.0, depth: int = 20) -> OrderBookSnapshot:
        """A new live book, confirmed `age` seconds ago."""
        before = self.observations.get(symbol, Observation()).snapshot
        snapshot = book(
            symbol,
            exchange=self.exchange,
            bids=bids,
            asks=asks,
            depth=depth,
            update_id=before.update_id + 1 if before else 1,
        )
        self.observations[symbol] = Observation(snapshot, age, age, True)
        self._changes.publish(symbol)
        return snapshot

    def change(self, symbol: str, **changes: object) -> None:
        """Replace fields of a symbol's observation."""
        self.observations[symbol] = replace(self.observations[symbol], **changes)

    def lose(self, symbol: str) -> None:
        """Make the book suspect."""
        snapshot = self.observations[symbol].snapshot
        assert snapshot is not None
        self.change(symbol, snapshot=replace(snapshot, state="suspect"))
        self._changes.publish(symbol)

    @property
    def symbols(self) -> Sequence[str]:
        return list(self.observations)

    def start(self) -> None:
        self.calls.append("start")
        self.running = True
        self._changes.open()

    def stop(self) -> None:
        self.calls.append("stop")
        self.running = False
        self._changes.close()

    def standard_symbol(self, name: str) -> str:
        return self._names.resolve(name).symbol

    def get_connection_status(self) -> ConnectionStatus:
        return ConnectionStatus(
            is_running=self.running,
            connected=self.running and not self.error,
            thread_alive=self.running,
            reconnect_count=1,
            error=self.error,
            symbols=self._statuses(),
        )

    def _observe(self, symbol: str) -> Observation:
        return self.observations.get(symbol, Observation())

    def _counts(self, symbol: str) -> Counts:
        return Counts(received=2, conflated=1)
