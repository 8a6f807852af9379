"""A Redis server in this process: the commands that the product uses, its real Lua scripts, and replication.

Its clock is its own: times in the hashes, expiry and stream ids follow it. A replica repeats what its primary did,
`lag` seconds later, with the primary's times.
"""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import hiredis
from lupa import lua51  # type: ignore[import-untyped]

from tests.simulation.world import Clock, Connection, Listener, Process, World

_DENIED_WITHOUT_MEMORY = frozenset({"HSET", "SADD", "XADD", "SET", "EVALSHA", "EVAL"})
_COPIED = frozenset({"HSET", "HDEL", "SADD", "SREM", "PEXPIREAT", "PERSIST", "DEL", "UNLINK", "PUBLISH"})
_WRITES = _DENIED_WITHOUT_MEMORY | _COPIED - {"PUBLISH"} | {"EXPIRE", "PEXPIRE"}


class CommandError(Exception):
    """An error reply."""


class Server(Listener):
    """One server. `primary` is None while it is one itself."""

    def __init__(self, world: World, host: str, clock: Clock) -> None:
        super().__init__(world, host, clock)
        self.data: dict[bytes, Any] = {}
        self.expires_us: dict[bytes, int] = {}
        self.primary: Server | None = None
        self.replicas: list[Server] = []
        self.lag = 0.0
        """Seconds that a replica is behind although its link is up."""
        self.refuses = ""
        """The error that every command which needs memory or disk gets; empty for none."""
        self.trades_added: list[tuple[float, bytes, int]] = []
        """True time, stream and id of every trade that was added here as primary."""
        self.offset = 0
        self._scripts: dict[bytes, Callable[[], Any]] = {}
        self._sessions: list[_Session] = []
        self._unapplied: deque[tuple[float, list[bytes]]] = deque()
        self._last_io = 0.0
        self._link: Any = None
        self._applying = False

    # connections

    def accept(self, connection: Connection, peer: Process) -> None:
        session = _Session(self, connection)
        self._sessions.append(session)
        connection.receive = session.receive

    def leave(self, session: "_Session") -> None:
        self._sessions = [one for one in self._sessions if one is not session]

    def kill(self) -> None:
        super().kill()
        self._sessions.clear()
        self._scripts.clear()
        self._unapplied.clear()

    def restart(self, *, keep_data: bool) -> None:
        """Start again, with what was on disk or without it."""
        self.alive, self.paused = True, False
        if not keep_data:
            self.data.clear()
            self.expires_us.clear()

    # replication

    def follow(self, primary: "Server") -> None:
        """Become a replica, with a full copy."""
        self.primary = primary
        self.replicas = []
        self.data = copy.deepcopy(primary.data)
        self.expires_us = dict(primary.expires_us)
        self.offset = primary.offset
        self._unapplied.clear()
        self._last_io = self.clock.monotonic()
        self._link = self.world.pipe(primary, self, self._copied)
        primary.replicas = [*(one for one in primary.replicas if one is not self), self]
        for session in self._sessions:
            session.connection.close()
        self._sessions.clear()

    def promote(self) -> None:
        """Become the primary, as far as this server has got."""
        if self.primary is not None:
            self.primary.replicas = [one for one in self.primary.replicas if one is not self]
        if self._link is not None:
            self._link.ended = True
        self.primary, self._link = None, None
        self._unapplied.clear()

    def catch_up(self) -> None:
        """The lag ends: everything received so far is applied."""
        self.lag = 0.0
        self._unapplied = deque((0.0, command) for _, command in self._unapplied)
        self.enter(self._apply)

    def heartbeat_to_replicas(self) -> None:
        """A primary pings its replicas."""
        if self.alive and self.primary is None:
            self._copy([b"PING"])

    def _copy(self, command: list[bytes]) -> None:
        if self.primary is None:
            self.offset += 1
            for replica in self.replicas:
                replica._link.send(command)

    def _copied(self, command: list[bytes] | None) -> None:
        if command is None or self.primary is None:
            return
        self._last_io = self.clock.monotonic()
        at = max(self.world.now + self.lag, self._unapplied[-1][0] if self._unapplied else 0.0)
        self._unapplied.append((at, command))
        if at <= self.world.now:
            self._apply()
        else:
            self.world.at(at, lambda: self.enter(self._apply))

    def _apply(self) -> None:
        while self._unapplied and self._unapplied[0][0] <= self.world.now:
            _, command = self._unapplied.popleft()
            self.offset += 1
            self._applying = True
            try:
                self.call(command)
            finally:
                self._applying = False

    # commands

    def now_us(self) -> int:
        return round(self.clock.wall() * 1e6)

    def execute(self, command: list[bytes]) -> Any:
        """The reply to a client's command. Raises CommandError."""
        name = command[0].upper().decode()
        if self.refuses and name in _DENIED_WITHOUT_MEMORY:
            raise CommandError(self.refuses)
        if self.primary is not None and name in _WRITES:
            raise CommandError("READONLY You can't write against a read only replica.")
        return self.call(command)

    def call(self, command: list[bytes]) -> Any:
        name = command[0].upper().decode()
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is None:
            raise CommandError(f"ERR unknown command '{name}'")
        reply = handler(*command[1:])
        if name in _COPIED:
            self._copy(command)
        return reply

    def stored(self, key: bytes, kind: type, *, create: bool = False) -> Any:
        expires = self.expires_us.get(key)
        if expires is not None and expires <= self.now_us() and not self._applying:
            if self.primary is not None:
                return kind()  # the primary deletes it
            self.data.pop(key, None)
            del self.expires_us[key]
            self._copy([b"DEL", key])
        value = self.data.get(key)
        if value is None:
            value = kind()
            if create:
                self.data[key] = value
        elif not isinstance(value, kind):
            raise CommandError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _ping(self, *text: bytes) -> Any:
        return text[0] if text else _Status("PONG")

    def _time(self) -> list[bytes]:
        now = self.now_us()
        return [b"%d" % (now // 1_000_000), b"%d" % (now % 1_000_000)]

    def _client(self, *_: bytes) -> Any:
        return _Status("OK")

    _select = _auth = _client

    def _hello(self, *_: bytes) -> dict[bytes, Any]:
        return {b"server": b"redis", b"version": b"7.2.0", b"proto": 3, b"mode": b"standalone", b"role": b"master"}

    def _role(self) -> list[Any]:
        if self.primary is None:
            return [b"master", self.offset, []]
        link = b"connected" if self._link_up() else b"connect"
        return [b"slave", self.primary.host.encode(), 6379, link, self.offset]

    def _link_up(self) -> bool:
        return self.primary is not None and self.primary.alive and self.primary.primary is None

    def _info(self, *_: bytes) -> bytes:
        lines = ["maxmemory_policy:noeviction", "redis_version:7.2.0"]
        if self.primary is None:
            lines += ["role:master", f"master_repl_offset:{self.offset}", f"connected_slaves:{len(self.replicas)}"]
        else:
            up = self._link_up()
            idle = int(self.clock.monotonic() - self._last_io) if up else -1
            lines += [
                "role:slave",
                f"master_link_status:{'up' if up else 'down'}",
                f"master_last_io_seconds_ago:{idle}",
            ]
            lines += [
                f"slave_read_repl_offset:{self.offset + len(self._unapplied)}",
                f"slave_repl_offset:{self.offset}",
            ]
        return "\r\n".join(lines).encode() + b"\r\n"

    def _hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        stored = self.stored(key, dict)
        return [stored.get(name) for name in fields]

    def _hget(self, key: bytes, name: bytes) -> bytes | None:
        found: bytes | None = self.stored(key, dict).get(name)
        return found

    def _hgetall(self, key: bytes) -> dict[bytes, Any]:
        return dict(self.stored(key, dict))

    def _hstrlen(self, key: bytes, name: bytes) -> int:
        return len(self.stored(key, dict).get(name, b""))

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        stored = self.stored(key, dict, create=True)
        before = len(stored)
        stored.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(stored) - before

    def _hdel(self, key: bytes, *fields: bytes) -> int:
        stored = self.stored(key, dict)
        gone = sum(stored.pop(name, None) is not None for name in fields)
        if not stored:
            self.data.pop(key, None)
            self.expires_us.pop(key, None)
        return gone

    def _get(self, key: bytes) -> bytes | None:
        return self.stored(key, bytes) or None

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        names = [option.upper() for option in options]
        if b"NX" in names and self.stored(key, bytes):
            return None
        self.data[key] = value
        self.expires_us.pop(key, None)
        self._copy([b"SET", key, value])
        for name, factor in ((b"EX", 1000), (b"PX", 1)):
            if name in names:
                self.call([b"PEXPIREAT", key, self._in_ms(int(options[names.index(name) + 1]) * factor)])
        return _Status("OK")

    def _exists(self, *keys: bytes) -> int:
        return sum(self.expires_us.get(key, self.now_us() + 1) > self.now_us() and key in self.data for key in keys)

    def _del(self, *keys: bytes) -> int:
        for key in keys:
            self.expires_us.pop(key, None)
        return sum(self.data.pop(key, None) is not None for key in keys)

    _unlink = _del

    def _expire(self, key: bytes, seconds: bytes) -> int:
        return int(self.call([b"PEXPIREAT", key, self._in_ms(int(seconds) * 1000)]))

    def _pexpire(self, key: bytes, milliseconds: bytes) -> int:
        return int(self.call([b"PEXPIREAT", key, self._in_ms(int(milliseconds))]))

    def _in_ms(self, milliseconds: int) -> bytes:
        return b"%d" % (self.now_us() // 1000 + milliseconds)

    def _pexpireat(self, key: bytes, milliseconds: bytes) -> int:
        if key not in self.data:
            return 0
        self.expires_us[key] = int(milliseconds) * 1000
        return 1

    def _pttl(self, key: bytes) -> int:
        if not self._exists(key):
            return -2
        expires = self.expires_us.get(key)
        return -1 if expires is None else (expires - self.now_us()) // 1000

    def _ttl(self, key: bytes) -> int:
        left = self._pttl(key)
        return left if left < 0 else left // 1000

    def _persist(self, key: bytes) -> int:
        return int(self.expires_us.pop(key, None) is not None)

    def _sadd(self, key: bytes, *members: bytes) -> int:
        stored = self.stored(key, set, create=True)
        before = len(stored)
        stored.update(members)
        return len(stored) - before

    def _srem(self, key: bytes, *members: bytes) -> int:
        stored = self.stored(key, set)
        before = len(stored)
        stored.difference_update(members)
        return before - len(stored)

    def _smembers(self, key: bytes) -> list[bytes]:
        return sorted(self.stored(key, set))

    def _sismember(self, key: bytes, member: bytes) -> int:
        return int(member in self.stored(key, set))

    def _scan(self, _: bytes, *options: bytes) -> list[Any]:
        pattern = options[1].decode() if options else "*"
        found = [key for key in sorted(self.data) if fnmatchcase(key.decode(), pattern) and self._exists(key)]
        return [b"0", found]

    def _xadd(self, key: bytes, *arguments: bytes) -> bytes:
        rest = list(arguments)
        most = 0
        if rest[0].upper() == b"MAXLEN":
            most = int(rest[2])
            del rest[:3]
        entry, fields = rest[0], rest[1:]
        stream = self.stored(key, list, create=True)
        if entry == b"*":
            last = stream[-1][0] if stream else (0, 0)
            entry_id = max((self.now_us() // 1000, 0), (last[0], last[1] + 1))
        else:
            ms, _, number = entry.partition(b"-")
            entry_id = int(ms), int(number)
        stream.append((entry_id, fields))
        self._copy([b"XADD", key, _entry_text(entry_id), *fields])
        if most and len(stream) > most:
            del stream[: len(stream) - most]
        if self.primary is None:
            self.trades_added.append((self.world.now, key, int(fields[fields.index(b"id") + 1])))
        return _entry_text(entry_id)

    def _xlen(self, key: bytes) -> int:
        return len(self.stored(key, list))

    def _xrevrange(self, key: bytes, _high: bytes, _low: bytes, *count: bytes) -> list[Any]:
        entries = self.stored(key, list)[::-1]
        return [[_entry_text(entry), fields] for entry, fields in entries[: int(count[1]) if count else None]]

    def _xread(self, *arguments: bytes) -> list[Any] | None:
        count = int(arguments[1]) if arguments[0].upper() == b"COUNT" else None
        key, after = arguments[-2:]
        ms, _, number = after.partition(b"-")
        limit = int(ms), int(number)
        found = [[_entry_text(entry), fields] for entry, fields in self.stored(key, list) if entry > limit]
        return [[key, found[:count]]] if found else None

    def _publish(self, channel: bytes, message: bytes) -> int:
        heard = 0
        for session in self._sessions:
            if channel in session.channels:
                heard += 1
                session.push([b"message", channel, message])
        return heard

    # scripts

    def _script(self, action: bytes, *texts: bytes) -> Any:
        if action.upper() != b"LOAD":
            raise CommandError("ERR unknown SCRIPT subcommand")
        digest = hashlib.sha1(texts[0], usedforsecurity=False).hexdigest().encode()
        self._scripts[digest] = compiled(texts[0])
        return digest

    def _eval(self, text: bytes, count: bytes, *arguments: bytes) -> Any:
        return self._evalsha(self._script(b"LOAD", text), count, *arguments)

    def _evalsha(self, digest: bytes, count: bytes, *arguments: bytes) -> Any:
        script = self._scripts.get(digest)
        if script is None:
            raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
        keys = int(count)
        return run_script(script, self, list(arguments[:keys]), list(arguments[keys:]))


class _Session:
    """One client's connection; `HELLO` switches it to version 3 of the protocol, as redis-py does."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self.connection = connection
        self.channels: set[bytes] = set()
        self._server = server
        self._reader = hiredis.Reader()
        self._output: list[bytes] = []
        self._resp3 = False

    def receive(self, data: bytes | None) -> None:
        if data is None:
            self._server.leave(self)
            return
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            for reply in self._answer(command):
                self._output.append(encode(reply, self._resp3))
        if self._output:
            self.connection.send(b"".join(self._output))
            self._output.clear()

    def push(self, message: list[Any]) -> None:
        self.connection.send(encode(message))

    def _answer(self, command: list[bytes]) -> Iterator[Any]:
        name = command[0].upper()
        if name == b"SUBSCRIBE":
            for channel in command[1:]:
                self.channels.add(channel)
                yield [b"subscribe", channel, len(self.channels)]
        elif name == b"UNSUBSCRIBE":
            for channel in command[1:]:
                self.channels.discard(channel)
                yield [b"unsubscribe", channel, len(self.channels)]
        elif name == b"PING" and self.channels:
            yield [b"pong", command[1] if len(command) > 1 else b""]
        else:
            self._resp3 = self._resp3 or name == b"HELLO"
            try:
                yield self._server.execute(command)
            except CommandError as error:
                yield error


class _Status(str):
    """A simple string reply."""


def encode(reply: Any, resp3: bool = False) -> bytes:
    if isinstance(reply, _Status):
        return b"+%b\r\n" % reply.encode()
    if isinstance(reply, CommandError):
        return b"-%b\r\n" % str(reply).encode()
    if reply is None:
        return b"_\r\n" if resp3 else b"$-1\r\n"
    if isinstance(reply, dict):
        parts = b"".join(encode(part, resp3) for pair in reply.items() for part in pair)
        return b"%b%d\r\n%b" % ((b"%", len(reply), parts) if resp3 else (b"*", 2 * len(reply), parts))
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(encode(part, resp3) for part in reply)


def _entry_text(entry: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry


# --- Lua ----------------------------------------------------------------------------------------------------------

_LUA = lua51.LuaRuntime(encoding=None)
_COMPILED: dict[bytes, Callable[[], Any]] = {}
_SERVERS: list[Server] = []


def compiled(text: bytes) -> Callable[[], Any]:
    found = _COMPILED.get(text)
    if found is None:
        found = _COMPILED[text] = _compile(text)
    return found


def run_script(script: Callable[[], Any], server: Server, keys: list[bytes], arguments: list[bytes]) -> Any:
    _SERVERS.append(server)
    try:
        _set_arguments(_LUA.table_from(keys), _LUA.table_from(arguments))
        return _from_lua(script())
    except lua51.LuaError as error:
        raise CommandError(f"ERR {error}") from None
    finally:
        _SERVERS.pop()


def _call(*arguments: Any) -> Any:
    command = [one if isinstance(one, bytes) else b"%.17g" % one for one in arguments]
    return _to_lua(_SERVERS[-1].call(command))


def _pcall(*arguments: Any) -> Any:
    try:
        return _call(*arguments)
    except CommandError as error:
        return _LUA.table_from({b"err": str(error).encode()})


def _to_lua(reply: Any) -> Any:
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    if isinstance(reply, list):
        return _LUA.table_from([_to_lua(one) for one in reply])
    if isinstance(reply, str):
        return _LUA.table_from({b"ok": reply.encode()})
    return False if reply is None else reply


def _from_lua(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, int | float):
        return int(value)
    if isinstance(value, bytes):
        return value
    if value[b"err"] is not None:
        return CommandError(value[b"err"].decode())
    if value[b"ok"] is not None:
        return _Status(value[b"ok"].decode())
    parts, number = [], 1
    while value[number] is not None:
        parts.append(_from_lua(value[number]))
        number += 1
    return parts


_LUA.eval(
    b"function(call, pcall) redis = {call = call, pcall = pcall, error_reply = function(text) return {err = text} end,"
    b" status_reply = function(text) return {ok = text} end} end"
)(_call, _pcall)
_compile: Callable[[bytes], Any] = partial(_LUA.eval(b"function(text) return assert(loadstring(text)) end"))
_set_arguments = _LUA.eval(b"function(keys, arguments) KEYS, ARGV = keys, arguments end")
