"""Gaps between the updates of a stream: how long it is usually silent, and which silence needs an answer."""

FLOOR = 2.0
"""Seconds of silence that need no answer whatever is usual."""

FACTOR = 3.0
"""Silence is unusual beyond this many times the longest usual gap."""

_UNKNOWN = 1.0
"""Least usual gap in seconds while fewer than `_ENOUGH` gaps are known: a new stream is asked about early.

A slow one raises its limit `FACTOR` times with each gap, so it costs few questions.
"""

_ENOUGH = 8
_WINDOW_GAPS = 30
_WINDOW_SECONDS = 60.0
"""A window of gaps is complete with so many of them, after so many seconds."""

_LONGEST_WAIT = 15.0
"""Seconds between two questions in one silence at most, or the limit of the silence if that is longer."""

_IMPATIENT = 6.0
"""Limit in seconds up to which a silent book waits for no answer: its confirmation is held back at once."""


class UpdateGaps:
    """Silence of one stream against the longest gap of its last one or two windows. Times are monotonic seconds.

    `moved` is called when an update came since the last look, so gaps are as exact as looks are frequent.
    """

    __slots__ = ("_before", "_gaps", "_known", "_longest", "_questions", "_since", "_window_since", "next_question")

    def __init__(self, now: float) -> None:
        self._since = self._window_since = now
        self._before = self._longest = 0.0
        self._gaps = self._known = 0
        self._questions = 0
        self.next_question = 0.0

    @property
    def since(self) -> float:
        """When the present silence began."""
        return self._since

    @property
    def usual(self) -> float:
        """The longest usual gap in seconds."""
        longest = max(self._before, self._longest)
        return longest if self._known >= _ENOUGH else max(longest, _UNKNOWN)

    @property
    def limit(self) -> float:
        """Seconds of silence beyond which it is unusual."""
        return max(FLOOR, FACTOR * self.usual)

    @property
    def patience(self) -> float:
        """Seconds that an unusual silence may wait for its answer before it counts as doubt."""
        limit = self.limit
        return limit / 4 if limit > _IMPATIENT else 0.0

    def moved(self, now: float) -> None:
        """An update came: the silence was a gap. One gap raises the limit by no more than `FACTOR`."""
        self._longest = max(self._longest, min(now - self._since, self.limit))
        self._gaps += 1
        self._known += 1
        if self._gaps >= _WINDOW_GAPS and now - self._window_since >= _WINDOW_SECONDS:
            self._before, self._longest, self._gaps, self._window_since = self._longest, 0.0, 0, now
        self._start(now)

    def restart(self, now: float) -> None:
        """The time until now is no gap: the stream was not open, or had stalled, or this process had."""
        self._start(now)

    def is_unusual(self, now: float, limit: float | None = None) -> bool:
        """Whether the silence is beyond its limit, or beyond a shorter one that other data justify."""
        return now - self._since > (self.limit if limit is None else min(limit, self.limit))

    def asked(self, now: float) -> None:
        """A question was sent: the next one of the same silence waits twice as long."""
        wait = min(FLOOR * 2**self._questions, max(_LONGEST_WAIT, self.limit))
        self._questions = min(self._questions + 1, 32)
        self.next_question = now + wait

    def _start(self, now: float) -> None:
        self._since = now
        self._questions, self.next_question = 0, 0.0
