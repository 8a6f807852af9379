"""How old a book is by the server's clock, and whether its feeder lives."""

from collections import deque
from collections.abc import Collection

FEEDER_LIMIT = 3.0
"""Seconds without a heartbeat after which a feeder counts as gone."""


_MEASURES = 10


class ServerClock:
    """Turns the server's times into times of the local `boottime` clock.

    The answer to TIME was read somewhere between question and answer, so the quickest of the last few tells most.
    """

    def __init__(self) -> None:
        self._measures: deque[tuple[float, float]] = deque(maxlen=_MEASURES)
        self._offset: float | None = None

    def measure(self, sent: float, received: float, server_us: int) -> None:
        """The server said `server_us` to a question sent and answered at these local times."""
        uncertainty = (received - sent) / 2
        offset = server_us / 1e6 - (sent + received) / 2
        if any(abs(offset - other) > uncertainty + limit + 0.05 for limit, other in self._measures):
            # The server's clock was set: what was measured before is void.
            self._measures.clear()
        self._measures.append((uncertainty, offset))
        self._offset = min(self._measures)[1]

    def local(self, server_us: int) -> float | None:
        """The local time of a server's time; None before the first measure."""
        return None if self._offset is None else server_us / 1e6 - self._offset


class FeederLife:
    """Who was heard, when, and what each of them serves."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, str, frozenset[str]]] = {}
        self._listening: dict[object, float] = {}

    def listen(self, now: float, listener: object = None) -> None:
        """Heartbeats can be heard from now on, by one of several who listen."""
        self._listening[listener] = now

    def stop_listening(self, listener: object = None) -> None:
        """It cannot hear heartbeats until further notice."""
        self._listening.pop(listener, None)

    def receive(self, feeder: str, exchange: str, symbols: Collection[str], now: float) -> None:
        """A heartbeat came."""
        heard = {other: beat for other, beat in self._heard.items() if now - beat[0] <= FEEDER_LIMIT}
        heard[feeder] = (now, exchange, frozenset(symbols))
        # Replaced, not changed: other threads may be walking it.
        self._heard = heard

    def alive(self, feeder: str, exchange: str, symbol: str, now: float) -> bool | None:
        """Whether `feeder`, or another one that serves this book, lives; None if that cannot be told."""
        for name, (at, serves_exchange, serves) in self._heard.items():
            serving = name == feeder or (serves_exchange == exchange and symbol in serves)
            if serving and now - at <= FEEDER_LIMIT:
                return True
        # A list of its own: other threads may be changing it.
        since = max(list(self._listening.values()), default=now)
        return None if now - since <= FEEDER_LIMIT else False
