"""Profit of buying on one exchange and selling on another at this moment."""

from collections.abc import Sequence
from itertools import combinations

import msgspec

from bookbus.consumers.multi.venue_book import VenueBook, comparison_reason
from bookbus.schemas.snapshot import Levels

ASSUMPTION = (
    "net figures assume inventory on both exchanges: taker fees are charged, no transfer, no currency exchange and no "
    "funding; a foreign quote is valued at the best price of the exchange-rate book, whatever its size"
)


class Opportunity(msgspec.Struct, frozen=True, kw_only=True):
    """Buy at one exchange's asks, sell at the other's bids; prices, cost and profit are in the common quote currency.

    It is actionable if `reason` is empty. Figures are None if the two books cannot be compared. `gross_bps` is the
    distance of the best prices and `fees_bps` the fees, both in bps of the purchase price; `net_bps` is their
    difference. `size` is the quantity that both books hold at prices with a profit, `cost` the cost of buying it and
    `profit` the profit of selling it, both after fees. `fx_size` is the amount that the best level of the exchange rate
    covers, in the common quote currency; None without conversion.
    """

    symbol: str
    buy: str
    sell: str
    buy_age: float | None
    sell_age: float | None
    fx_age: float | None
    reason: str
    buy_price: float | None = None
    sell_price: float | None = None
    gross_bps: float | None = None
    fees_bps: float | None = None
    net_bps: float | None = None
    size: float = 0.0
    cost: float = 0.0
    profit: float = 0.0
    fx_size: float | None = None

    @property
    def actionable(self) -> bool:
        """Whether a trade now is profitable under ASSUMPTION."""
        return not self.reason


def find_opportunities(symbol: str, venues: Sequence[VenueBook], max_skew: float) -> list[Opportunity]:
    """One opportunity per pair of exchanges, in the more profitable direction."""
    return [_better_direction(symbol, one, other, max_skew) for one, other in combinations(venues, 2)]


def find_opportunity(symbol: str, buy: VenueBook, sell: VenueBook, max_skew: float) -> Opportunity:
    pair = Opportunity(
        symbol=symbol,
        buy=buy.exchange,
        sell=sell.exchange,
        buy_age=buy.age,
        sell_age=sell.age,
        fx_age=sell.fx_age if buy.fx_age is None else buy.fx_age,
        reason=comparison_reason(buy, sell, max_skew),
    )
    return pair if pair.reason else _with_figures(pair, buy, sell)


def walk(asks: Levels, bids: Levels, buy_fee_bps: float = 0.0, sell_fee_bps: float = 0.0) -> tuple[float, float, float]:
    """Size, cost and proceeds after fees of taking both sides level by level while each further unit is profitable."""
    size = cost = proceeds = 0.0
    cost_factor, proceeds_factor = 1 + buy_fee_bps / 1e4, 1 - sell_fee_bps / 1e4
    left_asks, left_bids = iter(asks), iter(bids)
    ask, bid = next(left_asks, None), next(left_bids, None)
    while ask is not None and bid is not None:
        unit_cost, unit_proceeds = ask[0] * cost_factor, bid[0] * proceeds_factor
        if unit_proceeds <= unit_cost:
            break
        taken = min(ask[1], bid[1])
        size += taken
        cost += taken * unit_cost
        proceeds += taken * unit_proceeds
        ask = (ask[0], ask[1] - taken) if ask[1] > taken else next(left_asks, None)
        bid = (bid[0], bid[1] - taken) if bid[1] > taken else next(left_bids, None)
    return size, cost, proceeds


def _better_direction(symbol: str, one: VenueBook, other: VenueBook, max_skew: float) -> Opportunity:
    there = find_opportunity(symbol, one, other, max_skew)
    if there.net_bps is None:
        return there
    back = find_opportunity(symbol, other, one, max_skew)
    return max(there, back, key=lambda found: (found.net_bps, found.buy))


def _with_figures(pair: Opportunity, buy: VenueBook, sell: VenueBook) -> Opportunity:
    buy_price, sell_price = buy.asks[0][0], sell.bids[0][0]
    gross_bps = (sell_price - buy_price) / buy_price * 1e4
    fees_bps = buy.fee_bps + sell.fee_bps * sell_price / buy_price
    size, cost, proceeds = walk(buy.asks, sell.bids, buy.fee_bps, sell.fee_bps)
    return msgspec.structs.replace(
        pair,
        reason="" if size > 0 else _why_no_profit(gross_bps),
        buy_price=buy_price,
        sell_price=sell_price,
        gross_bps=gross_bps,
        fees_bps=fees_bps,
        net_bps=gross_bps - fees_bps,
        size=size,
        cost=cost,
        profit=proceeds - cost,
        fx_size=_fx_size(buy, sell),
    )


def _why_no_profit(gross_bps: float) -> str:
    return "no profit left after fees" if gross_bps > 0 else "the books do not cross"


def _fx_size(buy: VenueBook, sell: VenueBook) -> float | None:
    sizes = []
    if buy.conversion is not None:
        sizes.append(buy.conversion.ask_size)
    if sell.conversion is not None:
        sizes.append(sell.conversion.bid_size)
    return min(sizes, default=None)
