"""Times of a run in whole microseconds, so that sums of them are exact and every schedule advances."""


def later(time: float, seconds: float) -> float:
    """The time `seconds` after `time`, both rounded to microseconds. Equal sums give equal times."""
    return (microseconds(time) + microseconds(seconds)) / 1e6


def microseconds(seconds: float) -> int:
    """Rounded to the nearest."""
    return round(seconds * 1e6)


class Schedule:
    """Moments at a fixed interval, the first at `began`."""

    def __init__(self, began: float, interval: float) -> None:
        """Raises ValueError for an interval below a microsecond."""
        self._began_us = microseconds(began)
        self._interval_us = microseconds(interval)
        self._done = 0
        if self._interval_us < 1:
            raise ValueError(f"an interval of {interval} s is too short")

    @property
    def next_due(self) -> float:
        """When the next moment is, in seconds."""
        return (self._began_us + self._done * self._interval_us) / 1e6

    def take_due(self, now: float) -> tuple[float, int] | None:
        """The newest moment up to `now`, and the number of earlier ones that were missed; None while none is due.

        The next moment is after `now`.
        """
        due = (microseconds(now) - self._began_us) // self._interval_us
        missed = due - self._done
        if missed < 0:
            return None
        self._done = due + 1
        return (self._began_us + due * self._interval_us) / 1e6, missed
