"""The control endpoint, the same for every venue: faults in, truth and status out."""

from typing import Protocol

import msgspec

from bookbus.feeders.simulator.core.faults import Fault, FaultError
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, json_response
from bookbus.feeders.simulator.instruments import SimulatedInstrument
from bookbus.feeders.simulator.truth import BookAt


class Controlled(Protocol):
    """What the endpoint acts on."""

    def inject(self, fault: Fault) -> None:
        """Play a fault. Raises FaultError."""

    def clear(self) -> None:
        """End all faults that last or wait."""

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""

    def book_at(self, symbol: str, update_id: int) -> BookAt | None:
        """The true book. Raises KeyError for an unknown symbol."""

    def known_ids(self, symbol: str, since: int) -> list[int]:
        """Ids whose true book is remembered. Raises KeyError for an unknown symbol."""

    def instrument(self, symbol: str) -> SimulatedInstrument:
        """Raises KeyError for an unknown symbol."""


_decode_fault = msgspec.json.Decoder(Fault).decode


def answer_control(exchange: Controlled, request: HttpRequest) -> HttpResponse:
    """One request to `/control/…`."""
    try:
        match request.method, request.path:
            case "GET", "/control/status":
                return json_response(exchange.status())
            case "GET", "/control/truth":
                return _truth(exchange, request.query)
            case "POST", "/control/fault":
                exchange.inject(_decode_fault(request.body))
                return json_response({"ok": True})
            case "POST", "/control/clear":
                exchange.clear()
                return json_response({"ok": True})
    except KeyError as error:
        return _error(404, f"unknown symbol or missing parameter: {error}")
    except (FaultError, ValueError, msgspec.MsgspecError) as error:
        return _error(400, str(error))
    return _error(404, "known: GET /control/status, GET /control/truth, POST /control/fault, POST /control/clear")


def _truth(exchange: Controlled, query: dict[str, str]) -> HttpResponse:
    """`symbol` and `update_id` for one book; `symbol` and `since` for all from that id on, up to `until` if given."""
    symbol = query["symbol"]
    instrument = exchange.instrument(symbol)
    depth = int(query["depth"]) if "depth" in query else None
    if "since" in query:
        known = exchange.known_ids(symbol, int(query["since"]))
        if "until" in query:
            known = [each for each in known if each <= int(query["until"])]
        found = (exchange.book_at(symbol, each) for each in known)
        return json_response({"symbol": symbol, "books": [_book(instrument, book, depth) for book in found if book]})
    book = exchange.book_at(symbol, int(query["update_id"]))
    if book is None:
        return _error(404, f"the book of {symbol} at {query['update_id']} is not known, or forgotten")
    return json_response({"symbol": symbol} | _book(instrument, book, depth))


def _book(instrument: SimulatedInstrument, book: BookAt, depth: int | None) -> dict[str, object]:
    def side(levels: list[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(instrument.price_text(ticks), instrument.quantity_text(steps)) for ticks, steps in levels[:depth]]

    return {"update_id": book.update_id, "bids": side(book.bids), "asks": side(book.asks)}


def _error(status: int, message: str) -> HttpResponse:
    return json_response({"error": message}, status)
