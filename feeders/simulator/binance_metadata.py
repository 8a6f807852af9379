"""What Binance's exchangeInfo says of the simulated markets, and of some that no longer trade."""

from collections.abc import Iterable

from bookbus.feeders.simulator.binance.settings import BinanceRules
from bookbus.feeders.simulator.core.market import Quote
from bookbus.feeders.simulator.instruments import DECIMALS, SimulatedInstrument, decimal_text

_DELISTED = (
    SimulatedInstrument("BCCBTC", "BCC", "BTC", 6, 3, 61_000, 100),
    SimulatedInstrument("HNTUSDT", "HNT", "USDT", 4, 3, 61_000, 100),
)
_GREATEST_TURNOVER = 2_000_000_000
_ORDER_TYPES = (
    *("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
)


def exchange_info(
    instruments: Iterable[SimulatedInstrument], rules: BinanceRules, time: int, *, with_delisted: bool
) -> dict[str, object]:
    """The whole answer."""
    symbols = [_symbol(instrument, "TRADING") for instrument in instruments]
    if with_delisted:
        named = {symbol["symbol"] for symbol in symbols}
        symbols += [_symbol(gone, "BREAK") for gone in _DELISTED if gone.native not in named]
    return {
        "timezone": "UTC",
        "serverTime": time,
        "rateLimits": [
            _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, rules.weight),
            _rate_limit("ORDERS", "SECOND", 10, 100),
            _rate_limit("ORDERS", "DAY", 1, 200_000),
            _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ],
        "exchangeFilters": [],
        "symbols": symbols,
    }


def day_statistics(instrument: SimulatedInstrument, quote: Quote, rank: int, time: int) -> dict[str, object]:
    """A day of one market in the short form. The greatest turnover has `rank` 0."""
    price, (last, _) = instrument.price_text(instrument.start_ticks), quote.bid
    volume = round(_GREATEST_TURNOVER / (rank + 1) / instrument.price(last) * 10**instrument.step_decimals)
    traded = round(instrument.price(last) * instrument.quantity(volume) * 10**DECIMALS)
    return {
        "symbol": instrument.native,
        "openPrice": price,
        "highPrice": instrument.price_text(max(instrument.start_ticks, last)),
        "lowPrice": instrument.price_text(min(instrument.start_ticks, last)),
        "lastPrice": instrument.price_text(last),
        "volume": instrument.quantity_text(volume),
        "quoteVolume": decimal_text(traded, DECIMALS),
        "openTime": time - 86_400_000,
        "closeTime": time,
        "firstId": 1,
        "lastId": volume,
        "count": volume,
    }


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, object]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _symbol(instrument: SimulatedInstrument, status: str) -> dict[str, object]:
    return {
        "symbol": instrument.native,
        "status": status,
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(_ORDER_TYPES),
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }


def _filters(instrument: SimulatedInstrument) -> list[dict[str, object]]:
    tick, step = decimal_text(1, instrument.tick_decimals), decimal_text(1, instrument.step_decimals)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": instrument.price_text(instrument.start_ticks * 100),
            "tickSize": tick,
        },
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": "120000.00000000",
            "stepSize": "0.00000000",
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]
