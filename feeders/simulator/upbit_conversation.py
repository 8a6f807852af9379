"""One connection to Upbit: what the client says, what it hears back, and how it ends."""

import asyncio
from random import Random

import msgspec
from websockets.exceptions import ConnectionClosed

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.rate_limit import RateLimit
from bookbus.feeders.simulator.upbit.messages import error_text
from bookbus.feeders.simulator.upbit.settings import UpbitRules
from bookbus.feeders.simulator.upbit_requests import Listing, Refusal, Subscription, parse_request
from bookbus.feeders.simulator.upbit_streams import Subscriber, UpbitStreams

_NORMAL = 1000
_LOOKS = 50
"""How often a connection is looked at within the time that it may idle."""
_LATEST_STATUS = 0.75
"""The first word that the connection is up comes within this share of the interval."""


class UpbitConversation:
    """From the handshake until the connection ends."""

    def __init__(
        self,
        subscriber: Subscriber,
        rules: UpbitRules,
        streams: UpbitStreams,
        faults: FaultBoard,
        background: Background,
    ) -> None:
        self.subscriber = subscriber
        self.was_refused = False
        self.was_cut = False
        self._connection: VenueConnection = subscriber.connection
        self._rules = rules
        self._streams = streams
        self._faults = faults
        self._background = background
        self._per_second = RateLimit(rules.messages, rules.message_window)
        self._per_minute = RateLimit(rules.more_messages, rules.more_message_window)
        self._heard = 0

    async def run(self) -> None:
        """Until the connection is closed by either side."""
        self._connection.on_frame = self._hear
        tasks = [asyncio.create_task(self._cut_when_idle())]
        try:
            async for message in self._connection:
                # Both count every message.
                if self._per_second.exceeded() | self._per_minute.exceeded():
                    self._refuse(Refusal("TOO_MANY_REQUESTS", "요청 수 제한을 초과했습니다."))
                elif message != "PING":
                    self._receive(message)
                elif len(tasks) == 1:
                    tasks.append(asyncio.create_task(self._tell_that_it_is_up()))
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self._streams.forget(self.subscriber)

    def _hear(self) -> None:
        self._heard += 1

    def _receive(self, message: str | bytes) -> None:
        number = self.subscriber.number
        if self._faults.strike("subscribe_ignored", connection=number):
            return
        if fault := self._faults.strike("ack_error", connection=number):
            self._refuse(Refusal(str(fault.value or "WRONG_FORMAT"), "Format 이 맞지 않습니다."))
            return
        match parse_request(message):
            case Refusal() as refusal:
                self._refuse(refusal)
            case Listing() as listing:
                self.subscriber.form = listing.form
                self._send(_listing(listing, self.subscriber.subscription))
            case Subscription() as subscription:
                self._streams.replace(self.subscriber, subscription)

    def _refuse(self, refusal: Refusal) -> None:
        """An error is the last that a client hears."""
        if self.was_refused:
            return
        self.was_refused = True
        self._send(error_text(*refusal))
        self._background.call_later(
            self._rules.close_delay, lambda: self._background.start(self._connection.close(_NORMAL))
        )

    def _send(self, text: str) -> None:
        self._connection.queue(encode_frame(text.encode(), binary=True))
        self._connection.send_queued()

    async def _tell_that_it_is_up(self) -> None:
        interval = self._rules.status_interval
        dice = Random(self.subscriber.number)  # noqa: S311
        await asyncio.sleep(dice.uniform(0, interval * _LATEST_STATUS))
        while True:
            self._send('{"status":"UP"}')
            await asyncio.sleep(interval)

    async def _cut_when_idle(self) -> None:
        """Without a closing frame."""
        connection, loop = self._connection, asyncio.get_running_loop()
        known, since = (0, 0), loop.time()
        while True:
            await asyncio.sleep(self._rules.idle / _LOOKS)
            now = self._heard, 0 if self._rules.idle_by_client else connection.sent
            if now != known:
                known, since = now, loop.time()
            elif loop.time() - since >= self._rules.idle:
                self.was_cut = True
                connection.transport.abort()
                return


def _listing(listing: Listing, subscription: Subscription | None) -> str:
    """What a connection is subscribed to."""
    long_names = ("method", "result", "type", "codes", "level", "ticket")
    short_names = ("mthd", "rslt", "ty", "cds", "lv", "tckt")
    method, result, type_, codes, level, ticket = short_names if listing.form.short else long_names
    found = [
        {type_: wish.kind, codes: wish.codes} | ({level: wish.level} if wish.kind == "orderbook" else {})
        for wish in (subscription.wishes if subscription else ())
    ]
    return msgspec.json.encode({method: "LIST_SUBSCRIPTIONS", result: found, ticket: listing.ticket}).decode()
