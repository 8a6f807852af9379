"""Finds streams that stalled although their socket answers pings: silence or lateness is compared with the exchange."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bookbus.feeders.books.events import Topic
from bookbus.feeders.errors import RestError, WebSocketProtocolError
from bookbus.feeders.feed import Feed
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.update_gaps import UpdateGaps
from bookbus.feeders.venue import Top, VenueTops
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.5
_BLIND = 1.5
"""Seconds between two looks after which received updates may not have been processed: no silence is concluded."""

ANSWER_LIMIT = 2.0
"""Seconds for an answer, request weight included."""

_GRACE = 0.8
"""Seconds after an answer in which the update that it shows may still arrive."""

_SUSPECT_AFTER = 2.5
"""Seconds of doubt without an answer after which a book is suspect."""

_BURST = 10
_REFILL = 2.0
"""Requests: so many at once, then one in so many seconds. One request asks about everything that is in doubt."""

_FAILED_WAIT = 10.0
"""Longest time in seconds between two questions while the exchange answers none."""

_CONTRADICTED = 1.5
"""Seconds of silence that need an answer if the symbol's trades or quotes show other prices meanwhile."""

LATE = 3_000_000
"""Microseconds by which an update is later than the earliest one of its connection, after which it is late."""

_LATE_UPDATES = 3
"""Late updates in a row, as looks see them, that need an answer."""

_AT_MOST = 20
"""Symbols whose levels show whether a whole connection stalled: the fastest ones."""

_LATE_SAMPLE = 3
_PATROL_INTERVAL = 30.0
_PATROL_GAP = 1.0
"""Longest usual gap in seconds of a stream that is compared without a doubt: it moves within the grace."""

_PATROL_HITS = 2
_LONGEST_PATROL_WAIT = 3_600.0
_FOUND_AGAIN = 60.0
"""Seconds within which a second stall of a symbol replaces its connection: another subscription was not enough."""

_REPLACE_INTERVAL = 30.0
"""Seconds between two replacements of a connection for one symbol."""

_END_INTERVAL, _LONGEST_END_INTERVAL = 10.0, 60.0
"""Seconds between two ends of a connection for stalls, doubled with each one that follows soon.

An exchange bans addresses that connect too often. Meanwhile books are suspect.
"""

_END_CALM = 2 * _LONGEST_END_INTERVAL
"""Seconds without a stall of the connection after which the interval is the shortest again."""

Key = tuple[Topic, str]
"""Topic and native symbol."""


class WatchedGroup(Protocol):
    """The connections of one feed."""

    feed: Feed

    @property
    def last_sign_of_life(self) -> float:
        """0.0 while no connection delivers every update."""

    def abandon(self, reason: str) -> None:
        """End every connection: all its books are lost, others are opened."""

    def subscribe_again(self, natives: Sequence[str]) -> None:
        """Subscribe to these symbols again on every connection."""

    def replace(self) -> None:
        """Replace every connection without a gap."""


@dataclass(slots=True)
class StallCounters:
    """Counts since the start."""

    stall_doubts: int = 0
    """Times at which a stream was silent or late beyond its usual gap between updates."""
    stall_requests: int = 0
    stall_confirmed: int = 0
    """Books that an answer confirmed."""
    stalls: int = 0
    """Streams and connections that had stalled, by two answers."""


@dataclass(slots=True)
class _Stream:
    """One book or quote, or a whole connection. Times are monotonic seconds."""

    gaps: UpdateGaps
    mark: tuple[int | None, int] = (None, 0)
    """Update id and time of receipt of the newest book at the last look."""
    doubted_at: float | None = None
    suspected: bool = False
    late: int = 0
    """Late updates in a row."""
    lag_us: int = 0
    contradicted: int = 0
    """Looks in a row at which other data of the symbol showed other prices."""
    found_at: float = float("-inf")

    def hold(self) -> float | None:
        """Time since which it is not confirmed; None while it may be."""
        return None if self.doubted_at is None else self.doubted_at + (0.0 if self.late else self.gaps.patience)

    def end_doubt(self) -> None:
        self.doubted_at, self.late, self.contradicted = None, 0, 0


@dataclass(slots=True)
class _Connection:
    """What is known of one group of connections."""

    stream: _Stream
    streams: dict[Key, _Stream] = field(default_factory=dict)
    offset_us: int | None = None
    """Receipt minus exchange time of the earliest update: clock difference and travel. None before one is known."""
    replaced_at: float = float("-inf")
    ended_at: float = float("-inf")
    end_interval: float = _END_INTERVAL
    next_patrol: float = 0.0
    patrol_hits: int = 0
    patrol_wait: float = _PATROL_INTERVAL


class Question(NamedTuple):
    """One book to compare: its group, and the update id and receipt that it had then."""

    group: WatchedGroup
    key: Key
    mark: tuple[int | None, int]
    late: bool


class StallWatch:
    """Looks twice a second at what every stream delivered, without any work per message."""

    def __init__(
        self,
        groups: Sequence[WatchedGroup],
        tops: VenueTops | None,
        rest: RestClient,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`groups` may grow. Without `tops` an unusual silence has no answer."""
        self.counters = StallCounters()
        self._groups = groups
        self._tops = tops
        self._rest = rest
        self._clock = clock
        self._sleep = sleep
        self._known: dict[int, _Connection] = {}
        self._looked_at = clock()
        self._failures = 0
        self._next_request = 0.0
        self._requests = float(_BURST)
        """Requests left at the last look."""
        self._asking = False

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._sleep(LOOK_INTERVAL)
                if questions := self.look():
                    self._asking = True
                    tasks.create_task(self.ask(questions))

    def held_since(self, group: WatchedGroup, topic: Topic, native: str) -> float | None:
        """Monotonic time since which nothing confirms this book although its connection lives; None if that does."""
        connection = self._known.get(id(group))
        if connection is None:
            return None
        stream = connection.streams.get((topic, native))
        holds = [each.hold() for each in (connection.stream, stream) if each is not None]
        now = self._clock()
        return min((hold for hold in holds if hold is not None and hold <= now), default=None)

    def look(self) -> list[Question]:
        """Record what every stream delivered since the last look. Returns what to ask the exchange now."""
        now = self._clock()
        passed, self._looked_at = now - self._looked_at, now
        blind = passed > _BLIND
        self._requests = min(self._requests + passed / _REFILL, _BURST)
        return [question for group in list(self._groups) for question in self._look(group, now, blind=blind)]

    def _look(self, group: WatchedGroup, now: float, *, blind: bool) -> list[Question]:
        connection = self._known.get(id(group))
        if connection is None:
            connection = self._known[id(group)] = _Connection(_Stream(UpdateGaps(now)))
        feed, whole = group.feed, connection.stream
        closed, moved = not group.last_sign_of_life, False
        streams = connection.streams
        if streams.keys() != feed.latest.keys():
            streams = connection.streams = {key: streams.get(key) or _Stream(UpdateGaps(now)) for key in feed.latest}
        for key, stream in streams.items():
            book, update_id = feed.latest[key], feed.books.update_id(key[1], key[0])
            before, stream.mark = stream.mark, (update_id, book.received_us)
            if blind or closed or update_id is None or before[0] is None:
                # Not open, lost, or complete for the first time.
                stream.gaps.restart(now)
                stream.end_doubt()
                stream.suspected = stream.suspected and update_id is not None
                moved = moved or (update_id is not None and before[0] is None)
            elif stream.mark != before and (update_id != before[0] or book.state == "live"):
                moved = True
                self._moved(connection, stream, book, fresh=book.received_us != before[1], now=now)
        if blind or closed:
            whole.gaps.restart(now)
            whole.end_doubt()
            return []
        if moved:
            whole.gaps.moved(now)
            whole.end_doubt()
        self._judge(group, connection, now)
        return self._questions(group, connection, now) if self._tops is not None else []

    def _moved(
        self, connection: _Connection, stream: _Stream, book: OrderBookSnapshot, *, fresh: bool, now: float
    ) -> None:
        stream.gaps.moved(now)
        late, doubted_at = stream.late, stream.doubted_at
        stream.end_doubt()
        if not fresh or book.exchange_us is None or book.state != "live":
            stream.late, stream.doubted_at = late, doubted_at if late >= _LATE_UPDATES else None
            return
        stream.lag_us = book.received_us - book.exchange_us
        offset = connection.offset_us
        connection.offset_us = stream.lag_us if offset is None else min(offset, stream.lag_us)
        if stream.lag_us - connection.offset_us > LATE:
            stream.late = late + 1
            stream.doubted_at = doubted_at if late >= _LATE_UPDATES else None

    def _judge(self, group: WatchedGroup, connection: _Connection, now: float) -> None:
        """Begin doubts; publish as suspect what no answer confirms, and as live again what moved."""
        whole = connection.stream
        may_begin = whole.doubted_at is None and now >= whole.gaps.next_question
        if connection.streams and may_begin and whole.gaps.is_unusual(now):
            self._begin(whole, now)
        for key, stream in connection.streams.items():
            if stream.mark[0] is None or (stream.gaps.since == now and not stream.late and not stream.suspected):
                continue
            # An answer that confirmed it holds until the next question.
            may_begin = stream.doubted_at is None and now >= stream.gaps.next_question
            if may_begin and self._is_doubtful(group.feed, connection, key, now):
                self._begin(stream, now)
            lost = any(
                hold is not None and now - hold >= _SUSPECT_AFTER for hold in (whole.hold(), self._hold_of(stream))
            )
            if lost and not stream.suspected:
                stream.suspected = True
                logger.warning("%s: %s is unusually silent and no answer confirms it", key[1], key[0])
                group.feed.doubt(*key, _now_us())
            elif stream.suspected and not lost:
                stream.suspected = False
                group.feed.trust(*key, _now_us())
            stream.mark = stream.mark[0], group.feed.latest[key].received_us
        overdue = [
            stream
            for stream in connection.streams.values()
            if stream.late and stream.doubted_at is not None and now - stream.doubted_at >= _SUSPECT_AFTER + _GRACE
        ]
        if overdue:
            # Nothing tells whether the clock or the stream is off: a new connection does.
            self._end(group, connection, "updates come late and no answer confirms them")

    def _begin(self, stream: _Stream, now: float) -> None:
        stream.doubted_at = now
        self.counters.stall_doubts += 1

    def _hold_of(self, stream: _Stream) -> float | None:
        """Late books are published as they come: they cannot be held as suspect."""
        return None if stream.late else stream.hold()

    def _is_doubtful(self, feed: Feed, connection: _Connection, key: Key, now: float) -> bool:
        stream = connection.streams[key]
        stream.contradicted = stream.contradicted + 1 if _is_contradicted(feed, connection.streams, key) else 0
        limit = _CONTRADICTED if stream.contradicted * LOOK_INTERVAL >= _CONTRADICTED else None
        return stream.late >= _LATE_UPDATES or stream.gaps.is_unusual(now, limit)

    def _questions(self, group: WatchedGroup, connection: _Connection, now: float) -> list[Question]:
        """All that is in doubt once any of it is due."""
        if self._asking or now < self._next_request or self._requests < 1:
            return []
        doubted = {key: each for key, each in connection.streams.items() if each.doubted_at is not None}
        silent = {key: each for key, each in doubted.items() if not each.late}
        late = [key for key, each in doubted.items() if each.late][:_LATE_SAMPLE]
        whole = connection.stream
        if whole.doubted_at is not None and now >= whole.gaps.next_question:
            whole.gaps.asked(now)
            # The fastest streams show a stall of all.
            live = sorted(connection.streams.items(), key=lambda item: item[1].gaps.usual)
            silent |= dict([item for item in live if item[1].mark[0] is not None][:_AT_MOST])
        elif not any(now >= each.gaps.next_question for each in doubted.values()):
            return self._patrol(group, connection, now)
        # The answer may cover others that are silent: asked together, they need fewer requests.
        silent |= {key: each for key, each in connection.streams.items() if not each.late and each.gaps.is_unusual(now)}
        for stream in (*doubted.values(), *silent.values()):
            stream.gaps.asked(now)
        return [
            Question(group, key, connection.streams[key].mark, late=key in late)
            for key in (*silent, *late)
            if connection.streams[key].mark[0] is not None
        ]

    def _patrol(self, group: WatchedGroup, connection: _Connection, now: float) -> list[Question]:
        """Now and then, one busy stream without a time of the exchange: only a comparison shows that it is late."""
        if now < connection.next_patrol:
            return []
        connection.next_patrol = now + connection.patrol_wait
        busy = [
            (stream.gaps.usual, key)
            for key, stream in connection.streams.items()
            if stream.mark[0] is not None and group.feed.latest[key].exchange_us is None
        ]
        usual, key = min(busy, default=(_PATROL_GAP, None))
        if key is None or usual >= _PATROL_GAP:
            return []
        return [Question(group, key, connection.streams[key].mark, late=True)]

    async def ask(self, questions: Sequence[Question]) -> None:
        """Compare these books with the exchange: what differs after a grace, and from a second answer, has stalled."""
        try:
            await self._ask(questions)
        finally:
            self._asking = False

    async def _ask(self, questions: Sequence[Question]) -> None:
        answer = await self._fetch(questions)
        differing = self._apply_answer(questions, answer)
        if not differing:
            return
        await self._sleep(_GRACE)
        # A late stream delivers: it must have reached the first answer by now.
        found = self._apply_answer([each for each in differing if each.late], answer)
        silent = [each for each in differing if not each.late and self._is_silent(each)]
        found += [each for each in self._apply_answer(silent, await self._fetch(silent)) if self._is_silent(each)]
        for group in {id(each.group): each.group for each in found}.values():
            self._found(group, [each for each in found if each.group is group])

    async def _fetch(self, questions: Sequence[Question]) -> Mapping[str, Top] | None:
        """The exchange's best levels; None without an answer."""
        if not questions or self._tops is None:
            return None
        # Late streams need exact answers, which are for few symbols.
        kinds = [[each.key[1] for each in questions if each.late is late] for late in (False, True)]
        answer: dict[str, Top] = {}
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                for natives in kinds:
                    if natives:
                        self.counters.stall_requests += 1
                        self._requests -= 1
                        answer |= await self._tops.fetch(self._rest, list(dict.fromkeys(natives)))
        except (RestError, WebSocketProtocolError, TimeoutError) as error:
            if not self._failures:
                logger.warning("cannot ask whether silent streams stalled: %s", str(error) or "no answer in time")
            self._failures += 1
            self._next_request = self._clock() + min(2.0 ** min(self._failures, 10) / 2, _FAILED_WAIT)
            return None
        self._failures = 0
        return answer

    def _apply_answer(self, questions: Sequence[Question], answer: Mapping[str, Top] | None) -> list[Question]:
        """End the doubts that the answer settles. Returns the questions that it contradicts."""
        if answer is None:
            return []
        differing: list[Question] = []
        for question in questions:
            top = answer.get(question.key[1])
            if top is None or (differs := self._differs(question, top)) is None:
                continue
            if differs:
                differing.append(question)
            else:
                self._confirm(question)
        for group in {id(each.group): each.group for each in questions}.values():
            if all(each.group is not group for each in differing):
                self._known[id(group)].stream.end_doubt()
        return differing

    def _differs(self, question: Question, top: Top) -> bool | None:
        """Whether the book lacks what the exchange has; None if that cannot be told."""
        topic, native = question.key
        feed = question.group.feed
        book, update_id = feed.latest.get(question.key), feed.books.update_id(native, topic)
        if book is None or update_id is None:
            return None
        if _are_equal(book, top):
            return False
        if top.update_id is not None:
            return top.update_id > update_id
        if not question.late:
            return True
        if top.exchange_us is None or book.exchange_us is None:
            return None
        # Both are the exchange's times.
        return top.exchange_us > book.exchange_us + LATE // 3

    def _confirm(self, question: Question) -> None:
        connection = self._known[id(question.group)]
        stream = connection.streams.get(question.key)
        if stream is None:
            return
        if question.late:
            connection.patrol_hits, connection.patrol_wait = 0, _PATROL_INTERVAL
            if stream.late:
                # On time by the exchange's word: the clocks differ by more than they did.
                connection.offset_us = stream.lag_us
                for each in connection.streams.values():
                    if each.late:
                        each.end_doubt()
        if stream.doubted_at is not None:
            self.counters.stall_confirmed += 1
        stream.end_doubt()

    def _is_silent(self, question: Question) -> bool:
        topic, native = question.key
        book = question.group.feed.latest.get(question.key)
        return book is not None and question.mark[0] == question.group.feed.books.update_id(native, topic)

    def _found(self, group: WatchedGroup, found: Sequence[Question]) -> None:
        connection, now = self._known[id(group)], self._clock()
        streams = connection.streams
        late = [each for each in found if each.late]
        if late and connection.offset_us is None:
            connection.patrol_hits += 1
            connection.next_patrol = now
            if connection.patrol_hits >= _PATROL_HITS:
                # If another connection changes nothing, it is not ended again and again.
                connection.patrol_wait = min(4 * connection.patrol_wait, _LONGEST_PATROL_WAIT)
                connection.next_patrol = now + connection.patrol_wait
                self._end(group, connection, f"updates come late: the exchange is ahead at {_names(late)}")
            return
        moving = [each for each in streams.values() if now - each.gaps.since < each.gaps.limit]
        if late and 2 * sum(each.late > 0 for each in moving) >= len(moving):
            self._end(group, connection, f"updates come late: the exchange is ahead at {_names(late)}")
        elif connection.stream.doubted_at is not None:
            self._end(group, connection, f"silent, but the exchange has other books: {_names(found)}")
        else:
            self._lose(group, connection, found, now)

    def _end(self, group: WatchedGroup, connection: _Connection, reason: str) -> None:
        now = self._clock()
        since_end = now - connection.ended_at
        if since_end < connection.end_interval:
            self._suspect(group, connection, reason)
            return
        repeated = since_end < _END_CALM
        connection.end_interval = min(2 * connection.end_interval, _LONGEST_END_INTERVAL) if repeated else _END_INTERVAL
        connection.ended_at = now
        self.counters.stalls += 1
        logger.warning("connection stalled: %s", reason)
        for each in (connection.stream, *connection.streams.values()):
            each.gaps.restart(now)
            each.end_doubt()
        connection.offset_us, connection.patrol_hits = None, 0
        group.abandon(f"the stream stalled: {reason}")

    def _suspect(self, group: WatchedGroup, connection: _Connection, reason: str) -> None:
        """The connection may not be ended again yet: its books are suspect until an update or an answer."""
        connection.stream.doubted_at = float("-inf")
        for (topic, native), stream in connection.streams.items():
            if stream.late:
                # It publishes what it gets: only a lost book stays suspect.
                stream.end_doubt()
                group.feed.invalidate(native, reason, _now_us(), topic)

    def _lose(self, group: WatchedGroup, connection: _Connection, found: Sequence[Question], now: float) -> None:
        again = False
        for (topic, native), late in [(each.key, each.late) for each in found]:
            stream = connection.streams[topic, native]
            self.counters.stalls += 1
            again = again or now - stream.found_at < _FOUND_AGAIN
            stream.found_at = now
            stream.gaps.restart(now)
            stream.end_doubt()
            reason = "updates come late" if late else "the stream stalled: the exchange has another book"
            logger.warning("%s: %s: %s", native, topic, reason)
            group.feed.invalidate(native, reason, _now_us(), topic)
        group.subscribe_again(list(dict.fromkeys(each.key[1] for each in found)))
        if again and now - connection.replaced_at >= _REPLACE_INTERVAL:
            connection.replaced_at = now
            group.replace()


def _is_contradicted(feed: Feed, streams: Mapping[Key, _Stream], key: Key) -> bool:
    """Whether newer trades or quotes of the symbol show that this book or quote is not the exchange's any more."""
    topic, native = key
    book, since = feed.latest[key], streams[key].gaps.since
    other_key: Key = ("quote" if topic == "book" else "book", native)
    other = streams.get(other_key)
    if other is not None and other.mark[0] is not None and other.gaps.since > since:
        return _best(feed.latest[other_key]) != _best(book)
    trade = feed.last_trades.get(native)
    if trade is None or book.exchange_us is None or trade.exchange_us <= book.exchange_us:
        return False
    bid, ask = _best(book)
    return (bid is not None and trade.price < bid[0]) or (ask is not None and trade.price > ask[0])


def _best(book: OrderBookSnapshot) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    return (book.bids[0] if book.bids else None), (book.asks[0] if book.asks else None)


def _are_equal(book: OrderBookSnapshot, top: Top) -> bool:
    depth = min(book.depth, top.levels)
    return _same(book.bids, top.bids, depth) and _same(book.asks, top.asks, depth)


def _same(ours: Levels, theirs: Levels, depth: int) -> bool:
    return tuple(ours[:depth]) == tuple(tuple(each) for each in theirs[:depth])


def _names(found: Sequence[Question]) -> str:
    names = list(dict.fromkeys(each.key[1] for each in found))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _now_us() -> int:
    return time.time_ns() // 1000
