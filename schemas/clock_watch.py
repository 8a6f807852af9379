"""Notices that a machine's clock was set, from its distance to a clock that cannot be set."""

_TOLERANCE = 0.5
"""Seconds between two checks that correcting a clock gradually, as NTP does, never takes."""


class ClockWatch:
    """Call `check` about once a second."""

    def __init__(self, wall: float, steady: float) -> None:
        """The clock of the machine in seconds, and one that includes system sleep and cannot be set."""
        self.jumps = 0
        """How often the clock was set."""
        self._offset = wall - steady

    def check(self, wall: float, steady: float) -> float:
        """Seconds by which the clock was set since the last check, negative if back; 0 if it was not."""
        offset, before = wall - steady, self._offset
        self._offset = offset
        if abs(offset - before) <= _TOLERANCE:
            return 0.0
        self.jumps += 1
        return offset - before
