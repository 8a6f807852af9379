"""Several connections (lines) that deliver the same updates: which is first, and when the exchange restarts its ids."""

from collections import deque
from collections.abc import Sequence

_MAX_FALLEN = 20
"""Updates in a row below what their own line delivered before, after which the exchange has restarted its ids."""

_MAX_PENDING = 64
"""Updates of one symbol that wait for the slower line to deliver them too; what is further behind is not measured."""

_STEPS = 4
"""Classes for each doubling of a time: a quantile is right within an eighth of it."""

_CLASSES = _STEPS * 28


class LineIds:
    """Distinguishes an exchange that restarted its update ids from updates that come late or twice.

    Ids of a slow line are old for the book, but rise on that line. Ids that stay below those that the same line
    delivered before belong to a new sequence.
    """

    __slots__ = ("_fallen", "_newest")

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}
        self._fallen = 0

    @property
    def falling(self) -> bool:
        """Whether the last id was below one that its own line delivered before."""
        return self._fallen > 0

    def restarted(self, update_id: int, line: int) -> bool:
        """Record one id; True once enough have fallen in a row."""
        if update_id >= self._newest.get(line, 0):
            self._newest[line] = update_id
            self._fallen = 0
            return False
        self._fallen += 1
        if self._fallen <= _MAX_FALLEN:
            return False
        self._newest.clear()
        self._fallen = 0
        return True

    def forget(self, line: int) -> None:
        """The line ended; another connection may get its number."""
        self._newest.pop(line, None)
        self._fallen = 0


class LineResult:
    """Counts of the updates of one line."""

    __slots__ = ("first", "leads", "updates")

    def __init__(self) -> None:
        self.updates = 0
        """Updates of books, first or not."""
        self.first = 0
        """Those that it delivered before every other line."""
        self.leads = [0] * _CLASSES

    def add_lead(self, lead_us: int) -> None:
        """It delivered an update `lead_us` earlier than the next line."""
        doublings = max(lead_us.bit_length() - 3, 0)
        self.leads[min(_STEPS * doublings + (lead_us >> doublings), _CLASSES - 1)] += 1

    def add(self, other: "LineResult") -> None:
        """Add the counts of another connection."""
        self.updates += other.updates
        self.first += other.first
        self.leads = [own + theirs for own, theirs in zip(self.leads, other.leads, strict=True)]

    def lead_ms(self, share: float) -> float | None:
        """The quantile `share` of all leads; None before the first."""
        total = sum(self.leads)
        if not total:
            return None
        reached = 0
        for number, count in enumerate(self.leads):
            reached += count
            if reached >= share * total:
                return _middle_us(number) / 1000
        raise AssertionError("the classes hold fewer leads than their sum")


class LineArbiter:
    """Compares the lines of one set of symbols."""

    def __init__(self, lines: int) -> None:
        self.results: Sequence[LineResult] = tuple(LineResult() for _ in range(lines))
        self._symbols: dict[str, _SymbolIds] = {}

    def record(self, native: str, update_id: int, slot: int, now_us: int) -> None:
        """Line number `slot` delivered this update of a book at this time."""
        result = self.results[slot]
        result.updates += 1
        symbol = self._symbols.get(native)
        if symbol is None or symbol.of_line[slot].restarted(update_id, slot):
            symbol = self._symbols[native] = _SymbolIds(len(self.results))
            symbol.of_line[slot].restarted(update_id, slot)
        if update_id > symbol.newest:
            result.first += 1
            symbol.newest = update_id
            symbol.ids.append(update_id)
            symbol.times_us.append(now_us)
            symbol.slots.append(slot)
            return
        while symbol.ids and symbol.ids[0] < update_id:
            symbol.drop_first()
        if symbol.ids and symbol.ids[0] == update_id and symbol.slots[0] != slot:
            self.results[symbol.slots[0]].add_lead(max(now_us - symbol.times_us[0], 0))
            symbol.drop_first()

    def seen_only_by(self, slot: int, since_us: int, until_us: int) -> list[str]:
        """Symbols with updates that this line delivered between these times and no other line has delivered yet."""
        return [
            native
            for native, symbol in self._symbols.items()
            if any(
                winner == slot and since_us <= time_us <= until_us
                for winner, time_us in zip(symbol.slots, symbol.times_us, strict=True)
            )
        ]


class _SymbolIds:
    """One symbol's newest ids, and the updates that only one line has delivered so far."""

    __slots__ = ("ids", "newest", "of_line", "slots", "times_us")

    def __init__(self, lines: int) -> None:
        self.newest = -1
        self.of_line = [LineIds() for _ in range(lines)]
        """Each line on its own: one that follows restarted ids from its start does not hide that another's fell."""
        self.ids: deque[int] = deque(maxlen=_MAX_PENDING)
        self.times_us: deque[int] = deque(maxlen=_MAX_PENDING)
        self.slots: deque[int] = deque(maxlen=_MAX_PENDING)

    def drop_first(self) -> None:
        self.ids.popleft()
        self.times_us.popleft()
        self.slots.popleft()


def _middle_us(number: int) -> float:
    if number < 2 * _STEPS:
        return float(number)
    doublings = number // _STEPS - 1
    return ((number % _STEPS + _STEPS) << doublings) + (1 << doublings) / 2
