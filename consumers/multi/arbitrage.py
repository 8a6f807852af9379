"""What buying on one exchange and selling on another would bring at this moment."""

from collections.abc import Sequence
from itertools import combinations

import msgspec

from bookbus.consumers.multi.venue_book import VenueBook, why_not_comparable
from bookbus.schemas.snapshot import Levels

ASSUMPTION = (
    "net figures assume inventory on both exchanges: taker fees are charged, no transfer, no currency exchange and no "
    "funding; a foreign quote is valued at the best price of the exchange-rate book, whatever its size"
)


class Opportunity(msgspec.Struct, frozen=True, kw_only=True):
    """Buy at one exchange's asks, sell at the other's bids; prices and `profit` are in the common quote currency.

    Without a reason it is actionable. The figures are None where the two books may not be compared. `gross_bps` is
    what the best prices are apart and `fees_bps` what the fees take, both of the purchase price; `net_bps` is their
    difference. `size` is how much both books hold at prices that leave a profit, `cost` what buying it takes and
    `profit` what it brings, both after fees. `fx_size` is what the best level of the exchange rate is good for, in
    the common quote currency; None where nothing is converted.
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
        """Whether a trade now would leave a profit under the stated assumptions."""
        return not self.reason


def find_opportunities(symbol: str, venues: Sequence[VenueBook], max_skew: float) -> list[Opportunity]:
    """One for each pair of exchanges, in the direction that brings more."""
    return [_better_direction(symbol, one, other, max_skew) for one, other in combinations(venues, 2)]


def find_opportunity(symbol: str, buy: VenueBook, sell: VenueBook, max_skew: float) -> Opportunity:
    """What buying on `buy` and selling on `sell` brings."""
    pair = Opportunity(
        symbol=symbol,
        buy=buy.exchange,
        sell=sell.exchange,
        buy_age=buy.age,
        sell_age=sell.age,
        fx_age=sell.fx_age if buy.fx_age is None else buy.fx_age,
        reason=why_not_comparable(buy, sell, max_skew),
    )
    return pair if pair.reason else _with_figures(pair, buy, sell)


def walk(asks: Levels, bids: Levels, buy_fee_bps: float = 0.0, sell_fee_bps: float = 0.0) -> tuple[float, float, float]:
    """Take both sides level by level while each further unit leaves a profit: size, cost and proceeds after fees."""
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
