"""Which of several connections brings each update first, and by how much."""

from collections import deque
from collections.abc import Sequence

_MAX_FALLEN = 20
"""Updates in a row below what their own line sent before, after which the exchange has started its ids again."""


class _LineIds:
    """Tells an exchange that started its ids again from updates that come late or twice.

    What a slow line brings is old for the book but rises on its own line; ids that stay below what the same line
    brought before are those of another beginning.
    """

    __slots__ = ("_fallen", "_newest")

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}
        self._fallen = 0

    @property
    def falling(self) -> bool:
        """Whether the last id was below one that its own line brought before."""
        return self._fallen > 0

    def started_again(self, update_id: int, line: int) -> bool:
        """Take note of one id; True once enough have fallen in a row."""
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
        """The line is gone; another connection may take its number."""
        self._newest.pop(line, None)
        self._fallen = 0


_MAX_PENDING = 64
"""Updates of one symbol that wait for the slower line to bring them too; what is further behind is not measured."""

_MAX_FALLEN = 20
"""Updates in a row below what their own line brought before, after which the exchange has started its ids again."""

_STEPS = 4
"""Classes for each doubling of a time: a quantile is right within an eighth of it."""

_CLASSES = _STEPS * 28


class LineResult:
    """What one line has brought so far."""

    __slots__ = ("first", "leads", "updates")

    def __init__(self) -> None:
        self.updates = 0
        """Updates of books, first or not."""
        self.first = 0
        """Those that it brought before every other line."""
        self.leads = [0] * _CLASSES

    def add_lead(self, lead_us: int) -> None:
        """It brought an update so much earlier than the next line."""
        doublings = max(lead_us.bit_length() - 3, 0)
        self.leads[min(_STEPS * doublings + (lead_us >> doublings), _CLASSES - 1)] += 1

    def add(self, other: "LineResult") -> None:
        """Count what another connection brought too."""
        self.updates += other.updates
        self.first += other.first
        self.leads = [own + theirs for own, theirs in zip(self.leads, other.leads, strict=True)]

    def lead_ms(self, share: float) -> float | None:
        """The lead that so great a share of all leads does not exceed; None before the first."""
        total = sum(self.leads)
        if not total:
            return None
        reached = 0
        for number, count in enumerate(self.leads):
            reached += count
            if reached >= share * total:
                return _middle_us(number) / 1000
        raise AssertionError("the classes hold fewer leads than their sum")


def _middle_us(number: int) -> float:
    """The middle of a class."""
    if number < 2 * _STEPS:
        return float(number)
    doublings = number // _STEPS - 1
    return ((number % _STEPS + _STEPS) << doublings) + (1 << doublings) / 2


class _Course:
    """One symbol's newest ids, and the updates that only one line has brought so far."""

    __slots__ = ("fallen", "ids", "newest", "newest_of", "slots", "times_us")

    def __init__(self, lines: int) -> None:
        self.newest = -1
        self.newest_of = [-1] * lines
        self.fallen = [0] * lines
        self.ids: deque[int] = deque(maxlen=_MAX_PENDING)
        self.times_us: deque[int] = deque(maxlen=_MAX_PENDING)
        self.slots: deque[int] = deque(maxlen=_MAX_PENDING)

    def drop_first(self) -> None:
        self.ids.popleft()
        self.times_us.popleft()
        self.slots.popleft()

    def started_again(self, update_id: int, slot: int) -> bool:
        """Take note of an id of this line; whether the exchange has begun its ids anew."""
        if update_id >= self.newest_of[slot]:
            self.newest_of[slot], self.fallen[slot] = update_id, 0
            return False
        self.fallen[slot] += 1
        return self.fallen[slot] > _MAX_FALLEN


class LineArbiter:
    """Compares the lines of one set of symbols. Whoever hands over a frame sets `slot` and `now_us` first."""

    def __init__(self, lines: int) -> None:
        self.slot = 0
        self.now_us = 0
        self.results: Sequence[LineResult] = tuple(LineResult() for _ in range(lines))
        self._courses: dict[str, _Course] = {}

    def note(self, native: str, update_id: int) -> None:
        """The line in `slot` has brought this update of a book."""
        slot, result = self.slot, self.results[self.slot]
        result.updates += 1
        course = self._courses.get(native)
        if course is None or course.started_again(update_id, slot):
            course = self._courses[native] = _Course(len(self.results))
            course.newest_of[slot] = update_id
        if update_id > course.newest:
            result.first += 1
            course.newest = update_id
            course.ids.append(update_id)
            course.times_us.append(self.now_us)
            course.slots.append(slot)
            return
        while course.ids and course.ids[0] < update_id:
            course.drop_first()
        if course.ids and course.ids[0] == update_id and course.slots[0] != slot:
            self.results[course.slots[0]].add_lead(max(self.now_us - course.times_us[0], 0))
            course.drop_first()

    def seen_only_by(self, slot: int, since_us: int, until_us: int) -> list[str]:
        """Symbols with updates that this line brought between these times and no other line has brought yet."""
        return [
            native
            for native, course in self._courses.items()
            if any(
                winner == slot and since_us <= time_us <= until_us
                for winner, time_us in zip(course.slots, course.times_us, strict=True)
            )
        ]
