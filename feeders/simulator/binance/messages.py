"""Texts that Binance spot sends: stream payloads and order books, to the letter."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import msgspec

from bookbus.feeders.simulator.core.market import Fill, Flush, Quote
from bookbus.feeders.simulator.instruments import DECIMALS, SimulatedInstrument
from bookbus.feeders.simulator.ladder import RawLevel
from bookbus.feeders.simulator.truth import BookAt


class _LevelFormat(NamedTuple):
    template: str
    price_unit: int
    quantity_unit: int


@cache
def _level_format(tick_decimals: int, step_decimals: int) -> _LevelFormat:
    price, quantity = _number_template(tick_decimals), _number_template(step_decimals)
    return _LevelFormat(f'["{price}","{quantity}"]', 10**tick_decimals, 10**step_decimals)


def _number_template(decimals: int) -> str:
    """For `whole, part`; a number without decimals still gets eight."""
    return f"%d.%0{decimals}d" + "0" * (DECIMALS - decimals) if decimals else "%d.%d" + "0" * (DECIMALS - 1)


def levels_text(instrument: SimulatedInstrument, levels: list[RawLevel]) -> str:
    """`["price","quantity"],…` without the outer brackets."""
    template, price, quantity = _level_format(instrument.tick_decimals, instrument.step_decimals)
    return ",".join([template % (p // price, p % price, q // quantity, q % quantity) for p, q in levels])


def quoted(text: str) -> str:
    """A JSON string."""
    return msgspec.json.encode(text).decode()


def depth_body(instrument: SimulatedInstrument, flush: Flush) -> str:
    """The two sides of a `depthUpdate`."""
    return f'"b":[{levels_text(instrument, flush.bids)}],"a":[{levels_text(instrument, flush.asks)}]'


def depth_update(instrument: SimulatedInstrument, flush: Flush, body: str, time: int) -> str:
    symbol = quoted(instrument.native)
    return f'{{"e":"depthUpdate","E":{time},"s":{symbol},"U":{flush.first_id},"u":{flush.last_id},{body}}}'


def book_text(instrument: SimulatedInstrument, book: BookAt) -> str:
    """Partial depth, and the answer to a REST request for depth."""
    bids, asks = levels_text(instrument, book.bids), levels_text(instrument, book.asks)
    return f'{{"lastUpdateId":{book.update_id},"bids":[{bids}],"asks":[{asks}]}}'


def book_ticker(instrument: SimulatedInstrument, quote: Quote) -> str:
    bid, bid_quantity = _number_texts(instrument, quote.bid)
    ask, ask_quantity = _number_texts(instrument, quote.ask)
    return (
        f'{{"u":{quote.update_id},"s":{quoted(instrument.native)},'
        f'"b":"{bid}","B":"{bid_quantity}","a":"{ask}","A":"{ask_quantity}"}}'
    )


def book_ticker_answer(instrument: SimulatedInstrument, quote: Quote) -> dict[str, str]:
    """The best level as REST tells it."""
    bid, bid_quantity = _number_texts(instrument, quote.bid)
    ask, ask_quantity = _number_texts(instrument, quote.ask)
    return {
        "symbol": instrument.native,
        "bidPrice": bid,
        "bidQty": bid_quantity,
        "askPrice": ask,
        "askQty": ask_quantity,
    }


def trades(instrument: SimulatedInstrument, fill: Fill) -> list[Callable[[int], str]]:
    """A writer a trade, in the order of their ids."""
    parts = [fill.steps // fill.trades] * fill.trades
    parts[-1] += fill.steps - sum(parts)
    first_id = fill.last_trade_id - fill.trades + 1
    return [partial(_trade, instrument, fill, first_id + index, steps) for index, steps in enumerate(parts)]


def aggregate_trade(instrument: SimulatedInstrument, fill: Fill, time: int) -> str:
    return (
        f'{{"e":"aggTrade","E":{time},"s":{quoted(instrument.native)},"a":{fill.fill_id},'
        f'"p":"{instrument.price_text(fill.ticks)}","q":"{instrument.quantity_text(fill.steps)}",'
        f'"f":{fill.last_trade_id - fill.trades + 1},"l":{fill.last_trade_id},'
        f'"T":{time},"m":{_maker_is_buyer(fill)},"M":true}}'
    )


def wrapped(stream: str, payload: str) -> str:
    """A payload as the combined connection sends it."""
    return f'{{"stream":{quoted(stream)},"data":{payload}}}'


def server_shutdown(time: int, *, combined: bool) -> str:
    payload = f'{{"e":"serverShutdown","E":{time}}}'
    return wrapped("!serverShutdown", payload) if combined else payload


def _trade(instrument: SimulatedInstrument, fill: Fill, trade_id: int, steps: int, time: int) -> str:
    return (
        f'{{"e":"trade","E":{time},"s":{quoted(instrument.native)},"t":{trade_id},'
        f'"p":"{instrument.price_text(fill.ticks)}","q":"{instrument.quantity_text(steps)}",'
        f'"T":{time},"m":{_maker_is_buyer(fill)},"M":true}}'
    )


def _maker_is_buyer(fill: Fill) -> str:
    return "false" if fill.aggressor == "buy" else "true"


def _number_texts(instrument: SimulatedInstrument, level: RawLevel) -> tuple[str, str]:
    return instrument.price_text(level[0]), instrument.quantity_text(level[1])
