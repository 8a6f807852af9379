"""Texts that Bybit's public socket sends: books, changes, trades."""

from collections.abc import Iterable

import msgspec

from bookbus.feeders.simulator.core.market import Fill
from bookbus.feeders.simulator.instruments import SimulatedInstrument
from bookbus.feeders.simulator.ladder import RawLevel
from bookbus.feeders.simulator.truth import BookAt


def snapshot(topic: str, instrument: SimulatedInstrument, book: BookAt, sequence: int, time_ms: int) -> str:
    """The whole book."""
    return _book(topic, "snapshot", instrument, book, sequence, time_ms)


def delta(
    topic: str, instrument: SimulatedInstrument, before: BookAt, book: BookAt, sequence: int, time_ms: int
) -> str:
    """What differs between two books; a level that left the topic's depth is gone like any other."""
    bids = sorted(_changes(before.bids, book.bids), reverse=True)
    asks = sorted(_changes(before.asks, book.asks))
    return _book(topic, "delta", instrument, BookAt(book.update_id, bids, asks), sequence, time_ms)


def trades(topic: str, instrument: SimulatedInstrument, fills: Iterable[Fill], sequence: int, time_ms: int) -> str:
    """What was traded in one go."""
    data = [
        {
            "i": str(fill.fill_id),
            "T": time_ms,
            "p": instrument.price_text(fill.ticks),
            "v": instrument.quantity_text(fill.steps),
            "S": "Buy" if fill.aggressor == "buy" else "Sell",
            "s": instrument.native,
            "BT": False,
            "RPI": False,
            "seq": sequence,
        }
        for fill in fills
    ]
    return msgspec.json.encode({"topic": topic, "ts": time_ms, "type": "snapshot", "data": data}).decode()


def _book(topic: str, kind: str, instrument: SimulatedInstrument, book: BookAt, sequence: int, time_ms: int) -> str:
    bids, asks = _levels(instrument, book.bids), _levels(instrument, book.asks)
    return (
        f'{{"topic":"{topic}","type":"{kind}","ts":{time_ms},"data":{{"s":"{instrument.native}",'
        f'"b":[{bids}],"a":[{asks}],"u":{book.update_id},"seq":{sequence}}},"cts":{time_ms}}}'
    )


def _levels(instrument: SimulatedInstrument, levels: Iterable[RawLevel]) -> str:
    price, quantity = instrument.price_text, instrument.quantity_text
    return ",".join([f'["{price(ticks)}","{quantity(steps) if steps else 0}"]' for ticks, steps in levels])


def _changes(before: Iterable[RawLevel], after: Iterable[RawLevel]) -> list[RawLevel]:
    was, now = dict(before), dict(after)
    gone = [(ticks, 0) for ticks in was if ticks not in now]
    return gone + [(ticks, steps) for ticks, steps in now.items() if was.get(ticks) != steps]
