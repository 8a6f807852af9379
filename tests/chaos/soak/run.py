"""One soak run: starts all processes, injects one fault after the other, and observes the effects."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from bookbus.feeders.redis_server import LocalServer
from tests.chaos.soak.bus import SoakBus
from tests.chaos.soak.episodes import Episode, episodes
from tests.chaos.soak.processes import SIMULATED, Exchange, ReaderProcess, Worker, feeder, stopped_at_end
from tests.chaos.soak.reader import REPORT_INTERVAL
from tests.chaos.soak.resources import processor_seconds
from tests.chaos.soak.verdict import Outcome
from tests.chaos.soak.watch import Played, Watch, unexplained

SAMPLE_INTERVAL = 10.0
_START_LIMIT = 90.0
_START_INTERVAL = 0.1
_RECOVERY_LIMIT = 60.0
_READERS_LIMIT = 10.0
"""Seconds after recovery within which readers must report live books: at least one report."""


class SoakError(RuntimeError):
    """A process did not start, or ended."""


class Soak:
    """One run. `say` is called with a line of progress every ten seconds."""

    def __init__(self, directory: Path, seed: int, symbols: int, readers: int, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._seed = seed
        self._say = say
        self._readers_each = max(1, readers // len(SIMULATED))
        self._exchanges = {name: Exchange(name, symbols, seed) for name in SIMULATED}
        self._feeders: list[Worker] = []
        self._readers: list[ReaderProcess] = []
        self._played: list[Played] = []
        self._healthy_since = 0.0
        self._outcome = Outcome(0.0)

    async def run(self, seconds: float) -> Outcome:
        """Run for `seconds`. Raises SoakError, SimulatorError or LocalRedisError if a process fails."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._say(f"starting exchanges, server, feeders and readers; their logs are in {self._directory}")
        with LocalServer(persistent=True) as server:
            async with self._running(server) as bus:
                symbols = {name: exchange.symbols for name, exchange in self._exchanges.items()}
                watch = Watch(server.url, symbols)
                async with _one_error(), asyncio.TaskGroup() as tasks:
                    for reader in self._readers:
                        tasks.create_task(reader.run())
                    await self._until_read()
                    begin = self._healthy_since = time.monotonic()
                    helpers = [tasks.create_task(watch.run()), tasks.create_task(self._look(begin, watch))]
                    await self._play(bus, begin + seconds)
                    await asyncio.sleep(REPORT_INTERVAL)
                    self._record_cpu_time(server)
                    for helper in helpers:
                        helper.cancel()
                    await self._stop(watch)
                self._outcome.seconds = time.monotonic() - begin
                return self._outcome

    @contextlib.asynccontextmanager
    async def _running(self, server: LocalServer) -> AsyncIterator[SoakBus]:
        with contextlib.ExitStack() as stack:
            for exchange in self._exchanges.values():
                stack.enter_context(exchange.process)
                self._feeders.append(feeder(exchange, server.url, self._directory))
                stack.enter_context(stopped_at_end(self._feeders[-1]))
            bus = SoakBus(server, {name: exchange.symbols for name, exchange in self._exchanges.items()})
            if not await bus.until_live(_START_LIMIT, self._all_run):
                raise SoakError(f"not all books are live, {_START_LIMIT:g} s at most; see {self._directory}")
            for exchange in self._exchanges.values():
                self._readers.append(ReaderProcess(exchange, server.url, self._directory, self._readers_each))
                stack.enter_context(stopped_at_end(self._readers[-1]))
            yield bus

    async def _until_read(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not all(reader.reports for reader in self._readers):
            if time.monotonic() > deadline or not self._all_run():
                raise SoakError(f"the readers have no books; see {self._directory}")
            await asyncio.sleep(_START_INTERVAL)

    async def _play(self, bus: SoakBus, end: float) -> None:
        """One episode after the other until `end`; the last one is finished."""
        markets = {name: exchange.natives for name, exchange in self._exchanges.items()}
        for quiet, episode in episodes(self._seed, markets):
            await asyncio.sleep(min(quiet, max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                return
            self._outcome.faults[episode.name] += 1
            played = Played(episode, time.time())
            self._played.append(played)
            await self._inject(bus, episode)
            recovering = time.monotonic()
            if not await bus.until_live(_RECOVERY_LIMIT):
                self._outcome.not_recovered.append(f"{episode.exchange} {episode.name}".strip())
            self._outcome.recoveries.append(time.monotonic() - recovering)
            played.end = time.time()
            self._healthy_since = time.monotonic()

    async def _inject(self, bus: SoakBus, episode: Episode) -> None:
        if episode.bus is not None:
            await bus.inject(episode.bus)
            return
        exchange = self._exchanges[episode.exchange].process
        for fault in episode.faults:
            await asyncio.to_thread(exchange.inject, **fault)
        await asyncio.sleep(episode.hold)
        await asyncio.to_thread(exchange.clear)

    async def _look(self, begin: float, watch: Watch) -> None:
        """Take samples, report progress, and check that readers are live when all books are."""
        seen = {reader.name: 0 for reader in self._readers}
        for number in range(1, 1 << 30):
            await asyncio.sleep(max(0.0, begin + number * SAMPLE_INTERVAL - time.monotonic()))
            at = time.monotonic() - begin
            for worker in (*self._feeders, *self._readers):
                if worker.process.poll() is not None:
                    raise SoakError(f"the process {worker.name!r} ended: see {worker.log}")
                worker.look(at)
            for reader in self._readers:
                healthy = self._is_quiet() and time.monotonic() - self._healthy_since > _READERS_LIMIT
                if healthy and reader.reports > seen[reader.name]:
                    self._outcome.late_readers += [f"{reader.name}: {reason}" for reason in reader.report.not_live]
                seen[reader.name] = reader.reports
            self._say(self._progress(at, watch))

    def _all_run(self) -> bool:
        return all(worker.process.poll() is None for worker in (*self._feeders, *self._readers))

    def _is_quiet(self) -> bool:
        return not self._played or self._played[-1].end is not None

    def _progress(self, at: float, watch: Watch) -> str:
        reports = [reader.report for reader in self._readers]
        memory = ", ".join(f"{worker.samples[-1].memory_mb:.1f}" for worker in (*self._feeders, *self._readers))
        fault = "quiet" if self._is_quiet() else self._played[-1].episode.name
        return (
            f"{at / 60:5.1f} min: {sum(report.compared for report in reports):,} books compared, "
            f"{sum(len(report.wrong) for report in reports)} wrong; {len(self._played)} faults, "
            f"{len(watch.suspects)} suspects, {len(unexplained(watch.suspects, self._played))} without a fault; "
            f"MB {memory}; {fault}"
        )

    def _record_cpu_time(self, server: LocalServer) -> None:
        """Record the CPU time of all processes."""
        pids = {worker.name: worker.process.pid for worker in (*self._feeders, *self._readers)}
        pids |= {f"{exchange.id} simulator": exchange.process.pid for exchange in self._exchanges.values()}
        pids |= {"server": server.pid, "this": os.getpid()}
        self._outcome.processor = {name: processor_seconds(pid) for name, pid in pids.items()}

    async def _stop(self, watch: Watch) -> None:
        """Stop readers, then feeders, and collect their results."""
        outcome = self._outcome
        for worker in (*self._readers, *self._feeders):
            outcome.samples[worker.name] = worker.samples
            outcome.exit_codes[worker.name] = await asyncio.to_thread(worker.stop)
        for reader in self._readers:
            outcome.reports[f"{reader.readers} {reader.name}"] = reader.report
        outcome.suspects = len(watch.suspects)
        outcome.false_suspects = [
            f"{each.exchange} {each.native} at {time.strftime('%H:%M:%S', time.gmtime(each.at))} UTC"
            for each in unexplained(watch.suspects, self._played)
        ]


@contextlib.asynccontextmanager
async def _one_error() -> AsyncIterator[None]:
    """Raise the first error of an exception group."""
    try:
        yield
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
