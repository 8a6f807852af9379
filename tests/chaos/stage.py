"""The real processes of a scenario: exchange, server, feeders, a second reader, and proxies between them."""

import asyncio
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import redis

from bookbus.feeders.commands.proxy import GOOD, Network, Proxy
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.instruments import EXCHANGES, guess_instrument
from tests.chaos.scenario import Action, Scenario, Way
from tests.support.feeder_process import FeederProcess

_SERVER_ACTIONS = ("kill", "start", "pause", "resume")
_REQUEST_WAYS = {"exchange": "ws_url", "rest": "rest_url"}


class Stage:
    """`async with Stage(scenario)` starts all processes; the readers of this process are not part of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        options: dict[str, Any] = {} if scenario.exchange != "binance" else {"levels": 1500}
        if scenario.prepared:
            options["prepared"] = scenario.prepared
        self.exchange = SimulatorProcess(
            scenario.symbols, exchange=scenario.exchange, rate=scenario.rate, seed=scenario.seed, **options
        )
        self.server = LocalServer(persistent=scenario.persistent, options=scenario.redis_options)
        self.symbol_of: dict[str, str] = {}
        """Standard symbol by native symbol."""
        self.logs: list[str] = []
        """Logs of replaced feeders."""
        self._ways: dict[str, Proxy] = {}
        self._feeders: list[FeederProcess] = []
        self._reader: subprocess.Popen[bytes] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Stage":
        try:
            await asyncio.to_thread(self._stack.enter_context, self.exchange)
            await asyncio.to_thread(self._stack.enter_context, self.server)
            venue = EXCHANGES[self.scenario.exchange]
            self.symbol_of = {native: guess_instrument(venue, native).symbol for native in self.exchange.symbols}
            for way in sorted(self.scenario.ways):
                url = urlsplit(self._direct_url(way))
                proxy = Proxy(url.hostname or "", url.port or 0, seed=self.scenario.seed)
                self._ways[way] = await self._stack.enter_async_context(proxy)
            self._feeders = [self._start_feeder(number) for number in range(self.scenario.feeders)]
            if self.scenario.reader_process:
                self._reader = await asyncio.to_thread(self._start_reader)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.kill()
            self._reader.wait()
        try:
            for feeder in self._feeders:
                await asyncio.to_thread(feeder.close)
        finally:
            await self._stack.aclose()

    def url(self, way: str) -> str:
        """The address of this connection, through its proxy if it has one."""
        direct = self._direct_url(way)
        if way not in self._ways:
            return direct
        return direct.replace(str(urlsplit(direct).port), str(self._ways[way].port))

    @property
    def log(self) -> str:
        """The logs of all feeders."""
        return "\n".join([*self.logs, *(feeder.log for feeder in self._feeders)])

    @property
    def dead_feeders(self) -> int:
        """Feeders that ended by themselves."""
        return sum(feeder.process.poll() is not None for feeder in self._feeders)

    async def act(self, action: Action, hit: Sequence[str] | None = None, seconds: float = 0.0) -> None:
        """Perform an action. `hit`: the affected native symbols; `seconds`: duration of a fault of the exchange."""
        if action.exchange is not None:
            fault = dict(action.exchange)
            if hit is not None:
                fault.setdefault("symbols", list(hit))
            if seconds:
                fault.setdefault("seconds", seconds)
            if fault.get("connection") == "first":
                fault["connection"] = (await asyncio.to_thread(self.exchange.status))["connections"][0]["connection"]
            await asyncio.to_thread(lambda: self.exchange.inject(**fault))
        elif action.redis is not None:
            await asyncio.to_thread(self._act_on_server, action.redis)
        elif action.feeder is not None:
            await asyncio.to_thread(self._act_on_feeder, action.feeder)
        elif action.reader is not None and self._reader is not None:
            self._reader.send_signal(signal.Signals[action.reader])
        elif action.way is not None:
            await self._act_on_way(action.way)

    async def calm(self) -> None:
        """End every fault that is still active."""
        await asyncio.to_thread(self.exchange.clear)
        for proxy in self._ways.values():
            if proxy.network != GOOD:
                await proxy.change(GOOD)

    def feeders_live(self) -> bool:
        """Whether every feeder has all its books live. Raises an error of redis-py while Redis is down."""
        pids = {str(feeder.process.pid) for feeder in self._feeders}
        with redis.Redis.from_url(self.server.url, decode_responses=True, socket_timeout=2.0) as client:
            beats = [client.hmget(key, "pid", "states") for key in client.scan_iter(match="md:feeder:*")]
        live = {pid for pid, states in beats if states and set(json.loads(states).values()) == {"live"}}
        return pids <= live

    def reader_follows(self) -> bool:
        """Whether the second reader receives books; it looks for new ones periodically."""
        return self._reader_count("received") > 0

    async def restart_feeder(self) -> None:
        """Replace the first feeder, like a manual restart."""
        await asyncio.to_thread(self._replace_feeder)

    def counts(self) -> dict[str, int]:
        """Counts of the exchange and the second reader."""
        status = self.exchange.status()
        statuses = status.get("rest_statuses", {})
        counts = {
            "weight": status.get("weight_total", 0),
            "weight_highest": status.get("weight_highest", 0),
            "requests": sum(statuses.values()),
            "connects": status["connects"],
            "connects_highest": status["connects_highest"],
            "connects_refused": status["connects_refused"],
            "faults_played": sum(status["faults_played"].values()),
        }
        return counts | ({"reader_reconnects": self._reader_count("reconnects")} if self._reader is not None else {})

    def _direct_url(self, way: str) -> str:
        url: str = getattr(self.exchange, _REQUEST_WAYS[way]) if way in _REQUEST_WAYS else self.server.url
        return url

    def _start_feeder(self, number: int) -> FeederProcess:
        return FeederProcess(
            "--exchange",
            self.scenario.exchange,
            "--redis",
            self.url("redis"),
            "--ws-url",
            self.url("exchange"),
            "--rest-url",
            self.url("rest"),
            "--symbols",
            ",".join(self.exchange.symbols),
            "--feeder-id",
            "abcdefgh"[number],
            *self.scenario.feeder_arguments,
            *(self.scenario.others_arguments if number else ()),
        )

    def _start_reader(self) -> "subprocess.Popen[bytes]":
        arguments = (self.server.url, self.scenario.exchange)
        return subprocess.Popen([sys.executable, "-m", "tests.chaos.reader_process", *arguments])

    def _act_on_server(self, what: str) -> None:
        if what in _SERVER_ACTIONS:
            getattr(self.server, what)()
            return
        with redis.Redis.from_url(self.server.url, socket_timeout=5.0) as client:
            client.execute_command(*shlex.split(what))

    def _act_on_feeder(self, what: str) -> None:
        if what != "start":
            self._feeders[0].signal(signal.Signals[what])
            if what == "SIGKILL":
                self._feeders[0].process.wait()
            return
        self._replace_feeder()

    def _replace_feeder(self) -> None:
        self.logs.append(self._feeders[0].log)
        self._feeders[0].close()
        self._feeders[0] = self._start_feeder(0)

    async def _act_on_way(self, way: Way) -> None:
        proxy = self._ways[way.to]
        if way.reset_mid_frame:
            proxy.reset_mid_frame()
        else:
            await proxy.change(Network(**{name: getattr(way, name) for name in Network.__struct_fields__}))

    def _reader_count(self, name: str) -> int:
        assert self._reader is not None
        with redis.Redis.from_url(self.server.url, decode_responses=True) as client:
            for key in client.scan_iter(match=f"md:consumer:*-{self._reader.pid}-*"):
                return int(client.hget(key, name) or 0)
        return 0
