"""Looks for what would keep a bus from working well: the server and its settings, clocks, exchanges, this machine.

What is asked is apart from what is judged: `judge_*` take facts and return findings, each with what to change.
"""

import contextlib
import email.utils
import os
import resource
import shutil
import socket
import ssl
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from bookbus.feeders.bus.connection import ReplyError, RespConnection, open_connection
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import RedisAddress, RedisServer, parse_redis_url, redacted

Level = Literal["ok", "advice", "wrong"]

OLDEST_SERVER = (6, 2)
SLOW = 0.01
"""Seconds of a median round trip; readers and feeders on the same network need a tenth of it."""

CLOCK_ADVICE, CLOCK_WRONG = 0.25, 2.0
"""Seconds by which two clocks may differ. Ages of books are computed from the server's clock."""

EXCHANGE_CLOCK_WRONG = 3.0
"""The date of an exchange's answer is in whole seconds."""

FEW_FILES = 1024
LITTLE_SPACE = 200_000_000
SMALL_PUBSUB = 1_000_000
"""Bytes; one burst of updates of a few hundred books is about that much."""

LARGE_PUBSUB = 16_000_000
_PINGS = 15
_LIMIT = 5.0
_FORBIDDEN = {451: "it refuses this location", 403: "it refuses this address", 418: "it has banned this address"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; `remedy` says what to change, and is empty if nothing has to."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself; empty or None where this user may not ask."""

    server: str
    info: dict[str, str] = {}
    config: dict[str, str] = {}
    round_trip: float | None = None
    clock_offset: float | None = None
    """Seconds by which its clock is ahead of ours."""
    write_error: str = ""
    """Its reply to a command that writes, if that is an error."""
    anyone: bool = False
    """Whether it takes commands without a password."""


class ExchangeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange answered; an error is empty if there was none."""

    exchange: str
    rest_url: str
    ws_url: str
    status: int | None = None
    rest_error: str = ""
    ws_error: str = ""
    clock_offset: float | None = None


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This machine, as a feeder would find it; a directory has the reason why it cannot be written, or nothing."""

    open_files: int
    directories: dict[str, str]
    free: dict[str, int]


def judge_server(facts: ServerFacts) -> list[Finding]:
    """Version, role, rights, memory, limits, protection, latency, clock."""
    found = [_version(facts), *_role(facts), *_memory(facts), *_limits(facts), *_protection(facts)]
    if facts.round_trip is not None:
        shown = f"{facts.round_trip * 1e3:.2f} ms a round trip (median)"
        if facts.round_trip > SLOW:
            found.append(_advice("latency", shown, "run the server nearer to its feeders and readers"))
        else:
            found.append(_ok("latency", shown))
    if facts.clock_offset is not None:
        found.append(_clock("clock", "the server's clock", facts.clock_offset, CLOCK_ADVICE, CLOCK_WRONG))
    if not facts.config:
        found.append(
            _advice(
                "settings",
                "this user may not read the server's settings (CONFIG GET)",
                "run doctor as a user who may, or compare them with deploy/valkey.conf",
            )
        )
    return found


def judge_exchange(facts: ExchangeFacts) -> list[Finding]:
    """Whether both of its addresses answer, and its clock."""
    subject = f"exchange {facts.exchange}"
    found = []
    if facts.rest_error:
        remedy = "check name resolution, firewall and proxy of this machine, or rest_url"
        found.append(_wrong(subject, f"no answer from {facts.rest_url}: {facts.rest_error}", remedy))
    elif facts.status in _FORBIDDEN:
        text = f"{facts.rest_url} answers {facts.status}: {_FORBIDDEN[facts.status]}"
        found.append(_wrong(subject, text, "run the feeder where the exchange serves you"))
    else:
        found.append(_ok(subject, f"{facts.rest_url} answers"))
    if facts.ws_error:
        remedy = "check firewall and proxy of this machine, or ws_url"
        found.append(_wrong(subject, f"cannot connect to {facts.ws_url}: {facts.ws_error}", remedy))
    else:
        found.append(_ok(subject, f"{facts.ws_url} can be reached"))
    if facts.clock_offset is not None:
        what = f"the clock of {facts.exchange}"
        found.append(_clock("clock", what, facts.clock_offset, EXCHANGE_CLOCK_WRONG, EXCHANGE_CLOCK_WRONG))
    return found


def judge_machine(facts: MachineFacts) -> list[Finding]:
    """Open files, directories, free space."""
    if facts.open_files < FEW_FILES:
        remedy = f"ulimit -n {4 * FEW_FILES}, or LimitNOFILE={64 * FEW_FILES} in a unit"
        found = [_wrong("open files", f"a process may have {facts.open_files} open", remedy)]
    else:
        found = [_ok("open files", f"a process may have {facts.open_files} open")]
    for directory, reason in facts.directories.items():
        if reason:
            remedy = "let this user write there, or name another (XDG_CACHE_HOME for the cache)"
            found.append(_wrong("directory", f"cannot write to {directory}: {reason}", remedy))
        else:
            found.append(_ok("directory", f"{directory} can be written"))
    for directory, free in facts.free.items():
        if free < LITTLE_SPACE:
            text = f"{free / 1e6:.0f} MB are left for {directory}"
            found.append(_wrong("free space", text, "make room: recordings, logs and lists of markets need it"))
    return found


async def ask_server(url: str, prefix: str = DEFAULT_PREFIX) -> ServerFacts:
    """Ask the server of this address. Raises ValueError for an invalid one, OSError with one line if it cannot be
    asked."""
    address = parse_redis_url(url)
    server = await _locate(address)
    connection = await open_connection(server)
    try:
        reply = await connection.call("PING")
        if isinstance(reply, ReplyError):
            raise ConnectionError(f"{server.masked}: {redacted(reply, address.secrets)}")
        round_trips, offsets = [], []
        for _ in range(_PINGS):
            before, at = time.perf_counter(), time.time()
            reply = await connection.call("TIME")
            taken = time.perf_counter() - before
            round_trips.append(taken)
            if isinstance(reply, list):
                offsets.append((taken, int(reply[0]) + int(reply[1]) / 1e6 - (at + taken / 2)))
        written = await connection.call("DEL", f"{prefix}:doctor")
        return ServerFacts(
            server=server.masked,
            info=_info(await connection.call("INFO")),
            config=await _config(connection),
            round_trip=statistics.median(round_trips),
            clock_offset=min(offsets)[1] if offsets else None,
            write_error=str(written) if isinstance(written, ReplyError) else "",
            anyone=await _takes_anyone(server),
        )
    finally:
        connection.close()


def ask_exchange(exchange: str, rest_url: str, ws_url: str) -> ExchangeFacts:
    """Send one request to its REST address and open one connection to its WebSocket address."""
    status, rest_error, offset = _ask_rest(rest_url)
    return ExchangeFacts(
        exchange=exchange,
        rest_url=rest_url,
        ws_url=ws_url,
        status=status,
        rest_error=rest_error,
        ws_error=_connect_error(ws_url),
        clock_offset=offset,
    )


def ask_machine(directories: Iterable[Path]) -> MachineFacts:
    """Look at this machine; the directories are made if they are not there."""
    asked = list(dict.fromkeys(directories))
    free = {}
    for directory in asked:
        with contextlib.suppress(OSError):
            free[str(directory)] = shutil.disk_usage(directory if directory.exists() else directory.parent).free
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MachineFacts(
        open_files=soft if soft != resource.RLIM_INFINITY else 1 << 30,
        directories={str(directory): _write_error(directory) for directory in asked},
        free=free,
    )


def no_server(url: str, reason: str) -> Finding:
    """The finding for a server that cannot be asked."""
    upper = reason.upper()
    if "NOAUTH" in upper or "WRONGPASS" in upper or "INVALID PASSWORD" in upper or "WITHOUT ANY PASSWORD" in upper:
        remedy = "name a user, redis://USER@host:6379/0, and its password in BOOKBUS_REDIS_PASSWORD or password_file"
        return _wrong("login", f"{url} refuses it: {reason}", remedy)
    if "NOPERM" in upper:
        return _wrong("login", f"{url}: {reason}", "give this user the rights that bookbus acl writes for its role")
    if "TLS" in upper or "SSL" in upper or "CERTIFICATE" in upper:
        return _wrong("server", reason, "use rediss:// with ?ssl_ca_certs=FILE, or the address without TLS")
    return _wrong("server", reason, "start one: bookbus redis --shared; or name the right one: --redis, redis.url")


def _ok(subject: str, text: str) -> Finding:
    return Finding(level="ok", subject=subject, text=text)


def _advice(subject: str, text: str, remedy: str) -> Finding:
    return Finding(level="advice", subject=subject, text=text, remedy=remedy)


def _wrong(subject: str, text: str, remedy: str) -> Finding:
    return Finding(level="wrong", subject=subject, text=text, remedy=remedy)


def _version(facts: ServerFacts) -> Finding:
    valkey = facts.info.get("valkey_version", "")
    name, text = ("Valkey", valkey) if valkey else ("Redis", facts.info.get("redis_version", ""))
    if not text:
        remedy = "run doctor as a user who may run INFO"
        return _advice("server", f"{facts.server}: its version is unknown", remedy)
    parts = tuple(int(part) if part.isdecimal() else 0 for part in text.split(".")[:2])
    if parts < OLDEST_SERVER:
        remedy = "use Redis 6.2 or later, or Valkey"
        return _wrong("server", f"{facts.server} is {name} {text}, which is too old", remedy)
    return _ok("server", f"{facts.server} is {name} {text}")


def _role(facts: ServerFacts) -> list[Finding]:
    if facts.write_error.startswith("READONLY") or facts.info.get("role") == "slave":
        remedy = "give feeders the address of the primary, or redis+sentinel:// so that they find it; readers may stay"
        return [_wrong("role", "it is a read-only replica", remedy)]
    if facts.write_error.startswith("NOPERM"):
        remedy = "for a feeder use the user feeder of bookbus acl; for a reader this is right"
        return [_advice("rights", "this user may not write", remedy)]
    if facts.write_error:
        return [
            _wrong("rights", f"it refuses to write: {facts.write_error}", "see its log; a full memory or disk does it")
        ]
    return [_ok("rights", "this user may write")]


def _memory(facts: ServerFacts) -> list[Finding]:
    policy = facts.config.get("maxmemory-policy") or facts.info.get("maxmemory_policy", "")
    limit, used = (_number(facts.info.get(name)) for name in ("maxmemory", "used_memory"))
    found = []
    if policy and policy != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
        judge = _wrong if limit else _advice
        found.append(judge("eviction", f"maxmemory-policy {policy} drops books when the memory is full", remedy))
    elif policy:
        found.append(_ok("eviction", "it drops no book (noeviction)"))
    if limit and used is not None and used > 0.9 * limit:
        remedy = "raise maxmemory, or publish fewer symbols or levels"
        found.append(_wrong("memory", f"{used / 1e6:.0f} of {limit / 1e6:.0f} MB are used", remedy))
    return found


def _limits(facts: ServerFacts) -> list[Finding]:
    words = facts.config.get("client-output-buffer-limit", "").split()
    limits = {words[at]: tuple(map(_number, words[at + 1 : at + 4])) for at in range(0, len(words) - 3, 4)}
    if "pubsub" not in limits:
        return []
    hard, soft, seconds = limits["pubsub"]
    shown = "client-output-buffer-limit pubsub " + " ".join(map(str, limits["pubsub"]))
    remedy = 'CONFIG SET client-output-buffer-limit "pubsub 8mb 2mb 5", and the same in its configuration file'
    smallest = min(limit for limit in (hard or 1 << 60, soft or 1 << 60))
    if smallest < SMALL_PUBSUB:
        return [_wrong("output limit", f"{shown} cuts readers off in a burst of updates", remedy)]
    if not hard or hard > LARGE_PUBSUB or (soft and seconds and seconds > 30):
        return [_advice("output limit", f"{shown} serves old books to a reader that stopped reading", remedy)]
    return [_ok("output limit", shown)]


def _protection(facts: ServerFacts) -> list[Finding]:
    if not facts.anyone:
        return [_ok("protection", "it asks for a login")]
    if facts.config.get("protected-mode") == "no":
        remedy = "CONFIG SET protected-mode yes, or give it users: bookbus acl"
        return [_wrong("protection", "it takes commands of anyone, from any machine (protected-mode no)", remedy)]
    if facts.config.get("protected-mode") == "yes":
        return [_ok("protection", "without a login it serves this machine alone (protected-mode yes)")]
    return []


def _clock(subject: str, what: str, offset: float, advice: float, wrong: float) -> Finding:
    text = f"{what} is {abs(offset):.3g} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    remedy = "synchronise both clocks (chrony or systemd-timesyncd): ages of books are computed from them"
    if abs(offset) >= wrong:
        return _wrong(subject, text, remedy)
    if abs(offset) >= advice:
        return _advice(subject, text, remedy)
    return _ok(subject, text)


async def _locate(address: RedisAddress) -> RedisServer:
    """The server to look at: the one of the address, the first that answers, or the primary of the Sentinels."""
    if address.kind != "sentinel":
        return address.servers[0]
    reason: Exception = ConnectionError("no Sentinel is named")
    for host, port in address.hosts:
        sentinel = RedisServer(f"Sentinel {host}:{port}", host, port, None, address.sentinel_login)
        try:
            connection = await open_connection(sentinel)
        except OSError as error:
            reason = error
            continue
        try:
            reply = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
        finally:
            connection.close()
        if isinstance(reply, list):
            return address.server_at((reply[0].decode(), int(reply[1])))
        reason = ConnectionError(f"{sentinel.masked} knows no service {address.service}")
    raise reason


async def _config(connection: RespConnection) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("maxmemory-policy", "client-output-buffer-limit", "protected-mode"):
        reply: Any = await connection.call("CONFIG", "GET", name)
        if isinstance(reply, list):
            texts = [part.decode(errors="replace") for part in reply if isinstance(part, bytes)]
            found |= dict(zip(texts[::2], texts[1::2], strict=False))
    return found


async def _takes_anyone(server: RedisServer) -> bool:
    """Whether it answers without a login."""
    try:
        connection = await open_connection(replace(server, login=replace(server.login, username=None, password=None)))
    except OSError:
        return False
    try:
        return not isinstance(await connection.call("PING"), ReplyError)
    except OSError:
        return False
    finally:
        connection.close()


def _info(reply: Any) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    return {name: value for name, colon, value in (line.partition(":") for line in text.splitlines()) if colon}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _ask_rest(url: str) -> tuple[int | None, str, float | None]:
    """Status, error, and by how many seconds the clock of the answer is ahead."""
    if urlsplit(url).scheme not in ("http", "https"):
        return None, "no http address", None
    before = time.time()
    try:
        with urllib.request.urlopen(url, timeout=_LIMIT) as answer:  # noqa: S310 - the scheme is checked
            status, headers = answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            status, headers = error.code, error.headers
    except (OSError, ValueError) as error:
        return None, _reason(getattr(error, "reason", None) or error), None
    return status, "", _offset(headers, before, time.time())


def _offset(headers: Mapping[str, str], before: float, after: float) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        # A date in whole seconds means up to one second later.
        return email.utils.parsedate_to_datetime(headers["Date"]).timestamp() + 0.5 - (before + after) / 2
    return None


def _connect_error(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port or {"ws": 80, "wss": 443}[parts.scheme]
        with socket.create_connection((parts.hostname or "", port), timeout=_LIMIT) as connection:
            if parts.scheme == "wss":
                with ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname):
                    pass
    except (KeyError, ValueError):
        return "no ws address"
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, TimeoutError):
        return f"no answer within {_LIMIT:g} s"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _write_error(directory: Path) -> str:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()
