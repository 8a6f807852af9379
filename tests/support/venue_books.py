"""ExchangeSource books for tests of consolidation and arbitrage."""

from hypothesis import strategies as st

from bookbus.consumers.multi.venue_book import VenueBook
from bookbus.schemas.snapshot import BookStatus, Levels
from tests.support.builders import book


def venue_book(
    exchange: str,
    bids: Levels,
    asks: Levels,
    *,
    age: float | None = 0.1,
    fee_bps: float = 0.0,
    depth: int = 20,
    reason: str = "",
) -> VenueBook:
    """A book in the common quote currency; with a reason it has no levels."""
    return VenueBook(
        exchange=exchange,
        symbol="BTC-USDT",
        status=BookStatus.STALE if reason else BookStatus.LIVE,
        fee_bps=fee_bps,
        age=age,
        reason=reason,
        snapshot=book("BTC-USDT", exchange=exchange, bids=bids, asks=asks, depth=depth),
        bids=() if reason else bids,
        asks=() if reason else asks,
        depth=depth,
    )


def _side(first: int, best: int, sign: int, steps: list[tuple[int, int]]) -> Levels:
    levels, price = [], best
    for step, quantity in [(0, first), *steps]:
        price += sign * step
        levels.append((price / 64, quantity / 8))
    return tuple(levels)


@st.composite
def level_pairs(draw: st.DrawFn) -> tuple[Levels, Levels]:
    """Bids and asks of an uncrossed book around 100; prices in 64ths, quantities in eighths, so that sums are exact."""
    quantities = st.integers(1, 40)
    steps = st.lists(st.tuples(st.integers(1, 8), quantities), max_size=8)
    bid = draw(st.integers(6300, 6500))
    ask = bid + draw(st.integers(1, 20))
    return _side(draw(quantities), bid, -1, draw(steps)), _side(draw(quantities), ask, 1, draw(steps))
