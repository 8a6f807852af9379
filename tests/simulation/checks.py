"""What must hold, judged with the true time and the exchange's own record of its books."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from bookbus.consumers.reading import MAX_AGE, Reading
from bookbus.schemas.snapshot import BookStatus
from tests.simulation.exchange import Exchange
from tests.simulation.world import World

ON_REPLICA = "push-replica"
"""The reader of the replica."""

SIGN_OF_LIFE = 1.5
"""Seconds that the sign of life of an exchange's connection may be old when it confirms a book."""

IN_TRANSIT = 2.0
"""Seconds that a submission may be held back before its feeder gives up the connection."""

UNNOTICED_PAUSE = 5.0
"""Seconds of a pause that a feeder does not notice: what it received before may confirm a book after."""


UNNOTICED_STALL = 10.0
"""Seconds of a stall that a feeder does not notice: a silence that is unusual for a book that was quiet before, and the
exchange's answer.
"""


def age_limit(kinds: Collection[str]) -> float:
    """Seconds after which a book that is no longer the exchange's may not be called live, with these faults."""
    limit = MAX_AGE + SIGN_OF_LIFE
    if "exchange-stall" in kinds:
        limit += UNNOTICED_STALL
    if "cut-feeder" in kinds:
        limit += IN_TRANSIT
    if "feeder-pause" in kinds and len(kinds) > 1:
        limit += UNNOTICED_PAUSE
    return limit


HEALED = 5.0
"""Seconds after the last fault, from which every book is live."""

HEALED_ON_REPLICA = 7.0
"""The same for readers of a replica: its stream must flow for two seconds before it counts."""


@dataclass
class Checks:
    """Collects the violations of one run; `home` is the exchange whose books are the right ones."""

    world: World
    home: Exchange
    natives: dict[str, str]
    """By standard symbol."""
    depth: int
    age_limit: float
    faults_end: float
    clocks_differ: Callable[[], bool] = lambda: False
    """Whether clocks of servers and feeders stay wrong: a reader of a replica may then call every book stale."""
    violations: list[str] = field(default_factory=list)
    readings: int = 0
    live: int = 0
    _newest: dict[tuple[str, str], int] = field(default_factory=dict)
    _statuses: dict[tuple[str, str], str] = field(default_factory=dict)

    def reader_started(self, reader: str) -> None:
        self._newest = {key: version for key, version in self._newest.items() if key[0] != reader}

    def data_lost(self) -> None:
        """The first book that a feeder sends is taken then, also an older one; only its age is limited."""
        self._newest.clear()

    def see(self, reader: str, symbol: str, reading: Reading) -> None:
        """One answer of a reader."""
        self.readings += 1
        key, now = (reader, symbol), self.world.now
        status = reading.status.value
        if self._statuses.get(key) != status:
            self._statuses[key] = status
            self.world.note(f"{reader} {symbol} {status} {reading.reason}")
        if reading.status is BookStatus.LIVE and reading.snapshot is not None:
            self.live += 1
            self._judge_live(key, reading)
        elif reader == ON_REPLICA and (self.clocks_differ() or now <= self.faults_end + HEALED_ON_REPLICA):
            pass
        elif now > self.faults_end + HEALED:
            self._violated("not live", f"{reader} says {symbol} is {status}: {reading.reason}")

    def _judge_live(self, key: tuple[str, str], reading: Reading) -> None:
        reader, symbol = key
        book, market, now = reading.snapshot, self.home.markets[self.natives[symbol]], self.world.now
        assert book is not None
        if not book.bids or book.bids[0][0] != market.touch:
            self._violated("network", f"{reader} {symbol}: a live book of another network: {book.bids[:1]}")
            return
        version = int(book.bids[0][1])
        if len(book.bids) != self.depth:
            self._violated("shape", f"{reader} {symbol}: {len(book.bids)} levels instead of {self.depth}")
        true = version < len(market.ids) and list(book.bids) == market.bids(len(book.bids), version)
        mirrored = [quantity for _, quantity in book.bids] == [quantity for _, quantity in book.asks]
        if not (true and mirrored and market.ids[version] <= book.update_id):
            self._violated("levels", f"{reader} {symbol}: the levels of {book.update_id} never were the exchange's")
            return
        age = now - market.replaced_at(version)
        if age > self.age_limit:
            self._violated("age", f"{reader} {symbol}: live {age:.2f} s after it was replaced (says {reading.age:.2f})")
        newest = self._newest.get(key, 0)
        if version < newest:
            self._violated("order", f"{reader} {symbol}: live book {version} after {newest}, {age:.2f} s old")
        self._newest[key] = max(newest, version)

    def trades(self, reader: str, ids: Sequence[int], added: Iterable[int], *, told: bool) -> None:
        """At the end: `ids` is what a tail has taken, `added` what the servers accepted meanwhile."""
        lost = sorted(set(added) - set(ids))
        if lost and not told:
            self._violated("trades", f"{reader}: {len(lost)} of {len(ids)} trades lost unseen, first {lost[0]}")
        # A server that lost its data no longer knows which trades it had.
        if len(ids) != len(set(ids)) and not told:
            self._violated("trades", f"{reader}: {len(ids) - len(set(ids))} trades twice")

    def bug(self, host: str, text: str) -> None:
        """A process failed in a way that no fault explains."""
        self._violated("bug", f"{host}: {text}")

    def _violated(self, kind: str, text: str) -> None:
        line = f"{self.world.now:.3f} {kind}: {text}"
        self.world.note("VIOLATION " + line)
        self.violations.append(line)
