"""Upbit's WebSocket side: who may connect, and what is counted of a connection."""

from collections.abc import Mapping
from http import HTTPStatus

from websockets.http11 import Request

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.core.connection import VenueConnection
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.websocket_server import VenueClients
from bookbus.feeders.simulator.rate_limit import RateLimit
from bookbus.feeders.simulator.upbit.settings import UpbitSettings
from bookbus.feeders.simulator.upbit_conversation import UpbitConversation
from bookbus.feeders.simulator.upbit_streams import Subscriber, UpbitStreams

PATH = "/websocket/v1"


class UpbitClients(VenueClients[Subscriber]):
    """A handshake may be one too many for a page; a connection ends by an error or for idling."""

    def __init__(
        self, settings: UpbitSettings, streams: UpbitStreams, faults: FaultBoard, background: Background
    ) -> None:
        self._rules = rules = settings.rules
        connecting = RateLimit(rules.connects, rules.connect_window)
        super().__init__((settings.host, settings.port), connecting, faults, background)
        self._streams = streams
        self._from_pages = RateLimit(1, rules.origin_window)
        self._with_origin = 0
        self._errors = 0
        self._idle_cuts = 0

    def status(self) -> dict[str, object]:
        """Connections, and how they ended."""
        ends = {"errors": self._errors, "idle_cuts": self._idle_cuts}
        return {**super().status(), "connects_with_origin": self._with_origin, **ends}

    def _describe(self, client: Subscriber) -> dict[str, object]:
        return {"requests": client.requests, "streams": len(client.active)}

    def _refusal(self, request: Request) -> HTTPStatus | None:
        if "Origin" in request.headers:
            self._with_origin += 1
            if self._from_pages.exceeded():
                return HTTPStatus.TOO_MANY_REQUESTS
        return None if request.path.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _headers(self) -> Mapping[str, str]:
        remaining = f"group=websocket; min=300; sec={self._connecting.left}"
        return {"remaining-req": remaining, "limit-by-ip": "Yes"}

    def _welcome(self, number: int, connection: VenueConnection) -> Subscriber:
        return Subscriber(number, connection)

    async def _converse(self, client: Subscriber) -> None:
        conversation = UpbitConversation(client, self._rules, self._streams, self._faults, self._background)
        try:
            await conversation.run()
        finally:
            self._errors += conversation.was_refused
            self._idle_cuts += conversation.was_cut
