"""What is ahead of one waiting order at its price, and how trades and cancellations shorten it."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class _Interval:
    """From one book to the next: what was ahead and displayed as it began, None where not known, and what traded."""

    ahead: float | None
    displayed: float | None
    traded: float = 0.0


class QueuePosition:
    """The place of an order that joined last. `share` is the share of cancelled quantity that stood ahead.

    Within one interval what traded at the price is subtracted from what the level lost, and only the rest was
    cancelled. Never more is ahead than is displayed.
    """

    def __init__(self, displayed: float | None, share: float) -> None:
        """`displayed` is the quantity at the price, None where the book does not show so far."""
        self._share = share
        self._shown = displayed
        self._ended: _Interval | None = None
        self._now = _Interval(displayed, displayed)

    @property
    def ahead(self) -> float | None:
        """Quantity that is served before us; None while it is not known."""
        ahead = self._now.ahead
        return None if ahead is None else max(ahead - self._now.traded, 0.0)

    def trade(self, quantity: float, in_newest_book: bool) -> float:
        """How much of a trade at the price was left for us.

        `in_newest_book` says that the newest book already lacks what traded, so that the trade is of the interval
        that this book ended. If that was before we joined, it is none of ours.
        """
        if in_newest_book:
            ended = self._ended
            if ended is None or ended.ahead is None:
                return 0.0
            left = quantity - max(ended.ahead - ended.traded, 0.0)
            self._ended = replace(ended, traded=ended.traded + quantity)
            self._now = replace(self._now, ahead=self._after(self._ended))
            return max(left, 0.0)
        ahead = self.ahead
        self._now = replace(self._now, traded=self._now.traded + quantity)
        return 0.0 if ahead is None else max(quantity - ahead, 0.0)

    def clear(self) -> None:
        """Nobody is ahead: the market traded through the price."""
        self._now = replace(self._now, ahead=0.0)
        if self._ended is not None:
            self._ended = replace(self._ended, ahead=0.0)

    def book(self, displayed: float | None) -> None:
        """A new book shows `displayed` at the price, None where it does not show so far."""
        self._ended, self._shown = self._now, displayed
        self._now = _Interval(self._after(self._ended), displayed)

    def joined_before_newest_book(self) -> bool:
        """Whether a trade that the newest book contains came after us."""
        return self._ended is not None

    def _after(self, interval: _Interval) -> float | None:
        """What was ahead when the interval ended."""
        shown = self._shown
        if interval.ahead is None:
            return shown
        ahead = max(interval.ahead - interval.traded, 0.0)
        if shown is None:
            return ahead
        if interval.displayed is not None:
            cancelled = max(interval.displayed - shown - interval.traded, 0.0)
            ahead = max(ahead - self._share * cancelled, 0.0)
        return min(ahead, shown)
