"""One session on the bus without its sockets: what is followed, asked, and made of the answers."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import hiredis

from bookbus.consumers.bus.book_hash import HASH_FIELDS, entry_of, local_time
from bookbus.consumers.bus.books import BusBook, BusTable
from bookbus.consumers.bus.connection import Command
from bookbus.consumers.bus.stream import BusStream, Gets, OnChange, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas import wire

logger = logging.getLogger(__name__)

TICK = 1.0
ANSWER_LIMIT = 5.0
"""Seconds without an answer after which a connection counts as dead."""

MOVING_LIMIT = 2.0
"""The same where another server may have taken over."""

_QUIET = 2.0
"""A book without news for this long is asked for its confirmation; feeders confirm as often."""

_DISCOVERY_INTERVAL = 2.0
_END_OF_TIME = 2**62
"""Microseconds that no clock shows."""

Unfit = Callable[[Any], str]
"""Takes the answer to ROLE. Returns why the server is the wrong one to read from, or nothing."""

_Handler = Callable[[Any, float, float], None]
"""Takes a reply, the time it was asked for, and now."""


class BusSession:
    """Follows books over two connections: `stream` brings messages, the other one answers questions.

    The caller carries `stream.outgoing` and `outgoing` to the sockets and the replies back, and calls `tick` each
    second. `wanted` is None for every book that the bus lists. `unfit` is for a server that others may replace.
    `sharded` is for a node of a cluster, which follows what it is told to and knows nothing of the others' books.
    """

    def __init__(
        self,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
        now: float,
        unfit: Unfit | None = None,
        *,
        sharded: bool = False,
    ) -> None:
        self.ready = False
        """Whether every book known at the beginning was read, or found to be absent."""
        self.stream = BusStream(table, on_change, self._read_hash, now, sharded=sharded)
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._unfit = unfit
        self._answer_limit = MOVING_LIMIT if unfit else ANSWER_LIMIT
        self._commands: list[Command] = []
        self._questions: deque[tuple[_Handler, float]] = deque()
        self._followed: set[BusBook] = set()
        self._unread: set[BusBook] = set()
        self._listed_at: float | None = None
        self.may_announce = not sharded
        self._ask(("TIME",), self._on_time, now)
        if sharded:
            self.follow(wanted or (), now)
        else:
            self._ask(("SMEMBERS", table.names.books), self._on_listed, now)

    def outgoing(self) -> list[Command]:
        """The questions to send."""
        commands, self._commands = self._commands, []
        return commands

    def receive(self, gets: Gets, now: float) -> None:
        """Take every answer there is. Raises SessionLostError if the server refuses what cannot be done without."""
        while (reply := gets()) is not False:
            if not self._questions:
                raise SessionLostError("an answer came that nobody asked for")
            handler, asked = self._questions.popleft()
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("MOVED"):
                raise SessionLostError(str(reply))
            handler(reply, asked, now)

    def tick(self, now: float) -> None:
        """What is due each second. Raises SessionLostError if the server no longer answers."""
        asked = self._questions[0][1] if self._questions else now
        if now - min(asked, self.stream.waiting_since(now)) > self._answer_limit:
            raise SessionLostError(f"no answer for {self._answer_limit:g} s")
        self._ask(("TIME",), self._on_time, now)
        if self._unfit is not None:
            self._ask(("ROLE",), self._on_role, now)
        self.stream.keep_alive(now)
        if self._listed_at is not None and self._wanted is None and now - self._listed_at >= _DISCOVERY_INTERVAL:
            self._listed_at = now
            self._ask(("SMEMBERS", self._table.names.books), self._on_listed, now)
        for book in self._followed:
            if book.steady:
                self._look_after(book, now)

    def follow(self, symbols: Iterable[str], now: float) -> None:
        """Follow these too."""
        books = [self._table.book(symbol) for symbol in dict.fromkeys(symbols)]
        new = [book for book in books if book not in self._followed]
        for book in new:
            book.await_hash()
        self._table.add(new)
        self._followed.update(new)
        self._unread.update(new)
        self.stream.subscribe(new, now)

    def announce(self, key: str, fields: Iterable[tuple[str, str]], seconds: int, now: float) -> None:
        """Say that this reader lives, unless its user may not write that."""
        if self.may_announce:
            self._ask(("HSET", key, *(text for field in fields for text in field)), self._on_announced, now)
            self._ask(("EXPIRE", key, seconds), self._on_announced, now)

    def _look_after(self, book: BusBook, now: float) -> None:
        newest = book.newest
        if book.spoiled:
            book.spoiled = False
            self._read_hash(book, now)
        elif newest is None or now - max(newest.received_at, newest.confirmed_at) >= _QUIET:
            self._ask(("HMGET", book.key, "seq", "confirmed_us"), partial(self._on_confirmation, book), now)

    def _ask(self, command: Command, handler: _Handler, now: float) -> None:
        self._commands.append(command)
        self._questions.append((handler, now))

    def _read_hash(self, book: BusBook, now: float) -> None:
        if book.steady:
            book.await_hash()
        self._ask(("HMGET", book.key, *HASH_FIELDS), partial(self._on_hash, book), now)

    def _on_hash(self, book: BusBook, reply: Any, _asked: float, now: float) -> None:
        changed = book.hash_read(entry_of(book, reply, self._table.clock, now))
        if not book.steady:
            self.stream.settle_later(book)
        if changed:
            self._on_change(book.symbol, 1)
        self._unread.discard(book)
        self.ready = self.ready or not self._unread

    def _on_confirmation(self, book: BusBook, reply: Any, _asked: float, now: float) -> None:
        newest = book.newest
        if not book.steady:
            return  # The hash is being read anyway.
        seq, confirmed_us = reply if isinstance(reply, list) and len(reply) == 2 else (b"", None)
        if newest is not None and seq == b"%d" % newest.seq:
            book.trouble = ""
            try:
                book.confirm(local_time(confirmed_us, self._table.clock, now))
            except wire.WireError as error:
                book.trouble = str(error)
        elif seq is not None:
            # The hash has another book than the one held, or is none: a message was lost, or this will say why.
            self._read_hash(book, now)

    def _on_time(self, reply: Any, asked: float, now: float) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise SessionLostError(str(reply))
        try:
            seconds, microseconds = reply
            time_us = int(seconds) * 1_000_000 + int(microseconds)
        except (ValueError, TypeError):
            raise SessionLostError("it does not tell the time") from None
        if not 0 <= time_us < _END_OF_TIME:
            raise SessionLostError("it does not tell the time")
        self._table.clock.measure(asked, now, time_us)

    def _on_role(self, reply: Any, _asked: float, _now: float) -> None:
        if self._unfit is not None and (reason := self._unfit(reply)):
            raise SessionLostError(reason)

    def _on_announced(self, reply: Any, _asked: float, _now: float) -> None:
        # Whatever else the server says, like being out of memory, may be over in a second.
        if self.may_announce and isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOPERM"):
            self.may_announce = False
            logger.debug("this user may not tell that the reader lives: %s", reply)

    def _on_listed(self, reply: Any, _asked: float, now: float) -> None:
        if isinstance(reply, hiredis.ReplyError):
            if self._wanted is None or str(reply).startswith("NOPERM"):
                raise SessionLostError(str(reply))
            reply = []
        if not isinstance(reply, list):
            raise SessionLostError("it does not list the books")
        listed = self._table.listed(reply)
        self._symbols.learn(listed)
        self.follow(listed if self._wanted is None else map(self._symbols.standard, self._wanted), now)
        self._listed_at = now
        self.ready = self.ready or not self._unread
