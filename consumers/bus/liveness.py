"""The server's clock, and which feeders are alive."""

from collections import deque
from collections.abc import Collection

FEEDER_LIMIT = 3.0
"""Seconds without a heartbeat after which a feeder counts as down."""

_MEASURES = 10
_MOST_FEEDERS = 10_000


class ServerClock:
    """Turns the server's times into times of the local `boottime` clock.

    The server read its clock at some moment between question and reply, so the fastest of the last replies is the
    most exact one.
    """

    def __init__(self) -> None:
        self._measures: deque[tuple[float, float]] = deque(maxlen=_MEASURES)
        self._offset: float | None = None

    def measure(self, sent: float, received: float, server_us: int) -> None:
        """The server replied `server_us` to TIME, which was sent and received at these local times."""
        uncertainty = (received - sent) / 2
        offset = server_us / 1e6 - (sent + received) / 2
        if any(abs(offset - other) > uncertainty + limit + 0.05 for limit, other in self._measures):
            # The server's clock was set: earlier measures are void.
            self._measures.clear()
        self._measures.append((uncertainty, offset))
        self._offset = min(self._measures)[1]

    def local(self, server_us: int) -> float | None:
        """The local time of a server's time; None before the first measure."""
        return None if self._offset is None else server_us / 1e6 - self._offset


class FeederLife:
    """The last heartbeat of each feeder and the books that it serves. Several connections may listen to heartbeats."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[float, str, frozenset[str]]] = {}
        self._listening: dict[object, float] = {}
        self._reconnects: dict[tuple[str, str], tuple[int, int]] = {}
        """By exchange and feeder: the first count and the highest one."""

    def listen(self, now: float, listener: object = None) -> None:
        """A connection receives heartbeats from now on."""
        self._listening[listener] = now

    def stop_listening(self, listener: object = None) -> None:
        """A connection no longer receives heartbeats."""
        self._listening.pop(listener, None)

    def reconnects(self, exchange: str) -> int:
        """How often feeders of this exchange lost a connection to it since their first heartbeats here."""
        counts = list(self._reconnects.items())  # a copy: other threads may change it
        return sum(last - first for (served, _), (first, last) in counts if served == exchange)

    def receive(
        self, feeder: str, exchange: str, symbols: Collection[str], now: float, reconnects: int | None = None
    ) -> None:
        """A heartbeat; `reconnects` is the feeder's own count since its start."""
        if reconnects is not None and ((exchange, feeder) in self._reconnects or len(self._reconnects) < _MOST_FEEDERS):
            first, last = self._reconnects.get((exchange, feeder), (reconnects, reconnects))
            self._reconnects[exchange, feeder] = first, max(last, reconnects)
        heard = {other: beat for other, beat in self._beats.items() if now - beat[0] <= FEEDER_LIMIT}
        heard[feeder] = (now, exchange, frozenset(symbols))
        # Replaced, not changed: other threads may be iterating over it.
        self._beats = heard

    def alive(self, feeder: str, exchange: str, symbol: str, now: float) -> bool | None:
        """Whether `feeder`, or another feeder of this book, is alive; None if that is not known."""
        for name, (at, serves_exchange, serves) in self._beats.items():
            serving = name == feeder or (serves_exchange == exchange and symbol in serves)
            if serving and now - at <= FEEDER_LIMIT:
                return True
        # A copy: other threads may change it.
        since = max(list(self._listening.values()), default=now)
        return None if now - since <= FEEDER_LIMIT else False
