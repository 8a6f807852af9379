"""Snapshot requests of all symbols: the urgent ones first, repeated ones with growing delays."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.errors import RestBlockedError, RestError, RestRefusedError, WebSocketProtocolError
from bookbus.feeders.feed import Feed
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import VenueSnapshots

logger = logging.getLogger(__name__)

OnAnswer = Callable[[str, bytes], None]
"""Gets the address and body of every answer, for a recording."""

_CALM_AFTER = 3.0
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0
_REFUSED_DELAY = 60.0
"""Seconds until a refused request is repeated: the symbol may be listed, or resume trading, later."""


@dataclass(slots=True)
class _Queued:
    need: SnapshotNeeded
    feed: Feed
    due: float
    task: asyncio.Task[None] | None = None


class SnapshotFetcher:
    """Fetches what feeds ask for, a few requests at a time; the receive path never waits for it."""

    def __init__(
        self, snapshots: VenueSnapshots | None, rest: RestClient, on_answer: OnAnswer | None = None, parallel: int = 4
    ) -> None:
        """`snapshots` is None for an exchange whose books never need one."""
        self._snapshots = snapshots
        self._rest = rest
        self._on_answer = on_answer
        self._parallel = parallel
        self._waiting: dict[str, _Queued] = {}
        self._running: dict[str, _Queued] = {}
        self._repeats: dict[tuple[str, bool], tuple[int, float]] = {}
        """By symbol and urgency: number of requests in a row, and when the last one was due."""
        self._failing: set[str] = set()
        self._refused: set[str] = set()
        self._wake = asyncio.Event()
        self.blocked = ""
        """Why the exchange refuses every request; empty while it does not."""
        self.failures = 0

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        """Queue a request; one of the same symbol that is running is not repeated, unless only this one is urgent."""
        running = self._running.get(need.native)
        if self.blocked or (running is not None and not need.urgent):
            return
        if running is not None and not running.need.urgent:
            self._abandon(running)
        known = self._waiting.get(need.native)
        if known is not None and known.need.urgent and not need.urgent:
            return
        # A waiting request keeps its due time: else a connection that breaks again and again would postpone it.
        # An urgent request does not take the due time of a background one, which may be far away.
        if known is not None and known.need.urgent != need.urgent:
            known = None
        due = known.due if known is not None else time.monotonic() + self._delay(need)
        self._waiting[need.native] = _Queued(need, feed, due)
        self._wake.set()

    def is_pending(self, native: str) -> bool:
        return native in self._waiting or native in self._running

    def answers_soon(self, native: str) -> bool:
        return self.is_pending(native) and native not in self._failing

    async def run(self) -> None:
        """Until cancelled. Errors other than of requests and answers end it."""
        async with asyncio.TaskGroup() as requests:
            while True:
                self._wake.clear()
                wait = self._start_due(requests)
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: before Python 3.12 that forgets it was cancelled when both happen at once.
                    async with asyncio.timeout(wait):
                        await self._wake.wait()

    def _start_due(self, requests: asyncio.TaskGroup) -> float | None:
        """Start what may start. Returns the seconds until the next one is due, None if none is waiting."""
        now = time.monotonic()
        self._waiting = {
            native: request for native, request in self._waiting.items() if native not in request.feed.dropped
        }
        idle = {native: request for native, request in self._waiting.items() if native not in self._running}
        for native, request in sorted(idle.items(), key=lambda item: not item[1].need.urgent):
            # Background requests wait for weight while they run: leave places to urgent ones.
            places = self._parallel if request.need.urgent else self._parallel // 2
            if request.due <= now and len(self._running) < places:
                self._running[native] = self._waiting.pop(native)
                request.task = requests.create_task(self._answer(request), name=f"snapshot {native}")
        later = [
            request.due - now for native, request in idle.items() if native not in self._running and request.due > now
        ]
        return min(later, default=None)

    async def _answer(self, request: _Queued) -> None:
        need, losses, snapshots = request.need, request.feed.losses, self._snapshots
        if snapshots is None:
            raise AssertionError(f"{need.native}: this exchange has no snapshots by request")
        request.feed.snapshot_requested(need.native)
        try:
            url, body = await snapshots.fetch(self._rest, need)
            if self._on_answer is not None:
                self._on_answer(url, body)
            self._end(request)
            self._failing.discard(need.native)
            self._refused.discard(need.native)
            if request.feed.losses != losses:
                self.ask(need, request.feed)  # the answer may be older than the connection that now needs it
                return
            request.feed.apply_snapshot(need.native, need.limit, body, time.time_ns() // 1000)
        except RestBlockedError as error:
            if not self.blocked:
                logger.error("%s", error)
            self.blocked = str(error)
            self._waiting.clear()
        except RestRefusedError as error:
            self.failures += 1
            if need.native not in self._refused:
                logger.error("%s has no snapshot, asking every %.0f s: %s", need.native, _REFUSED_DELAY, error)
            self._refused.add(need.native)
            self._failing.add(need.native)
            self._waiting.setdefault(need.native, _Queued(need, request.feed, time.monotonic() + _REFUSED_DELAY))
        except (RestError, WebSocketProtocolError) as error:
            self.failures += 1
            self._failing.add(need.native)
            logger.warning("snapshot of %s failed, trying again: %s", need.native, error)
            self._end(request)
            self.ask(need, request.feed)
        finally:
            self._end(request)
            self._wake.set()

    def _end(self, request: _Queued) -> None:
        if self._running.get(request.need.native) is request:
            del self._running[request.need.native]

    def _abandon(self, request: _Queued) -> None:
        """End a background request, which may wait long for weight, to ask for the same symbol urgently."""
        self._end(request)
        if request.task is not None:
            request.task.cancel()

    def _delay(self, need: SnapshotNeeded) -> float:
        """0 for the first request, growing with each repetition soon after the last one was due."""
        now, kind = time.monotonic(), (need.native, need.urgent)
        count, due = self._repeats.get(kind, (0, 0.0))
        count = 0 if now - due > _CALM_AFTER else count
        delay = 0.0 if count == 0 else min(_FIRST_DELAY * 2 ** (count - 1), _LONGEST_DELAY)
        self._repeats[kind] = (count + 1, now + delay)
        return delay
