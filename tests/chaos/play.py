"""Injects the faults of one scenario and checks what readers saw of each."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from random import Random

from tests.chaos.report import Outcome, Result
from tests.chaos.scenario import Fault, Scenario
from tests.chaos.stage import Stage
from tests.chaos.watch import LOOK_INTERVAL, Seen, Watch
from tests.support.true_age import LIVE_LIMIT

_START_LIMIT = 60.0
_GIVE_UP = 30.0
"""Limit in seconds, after the end of a fault, for recovery."""
_CALM = 1.0
"""A fault is over after this many seconds in which every book was live."""
_DEEP_WEIGHT = 50
"""Request weight within `_CALM` that shows deep snapshots: audits and first snapshots weigh 5."""
_COUNT_LIMIT = 5.0
_EXAMPLES = 5
_SLOWNESS = 0.4
"""Seconds that each unit of `patience` adds to the true age at which a book may be live."""
_BUDGETS = {
    "binance": {"weight_highest": 3_000, "connects_highest": 300},
    "upbit": {"connects_highest": 5},
    "bybit": {"connects_highest": 500},
}
"""Most that one program may use of an exchange's rate limits."""


async def play(name: str, scenario: Scenario, seconds: float = 0.0, patience: float = 1.0) -> Result:
    """Inject every fault once, then repeat all until `seconds` have passed.

    `patience` multiplies the limits for noticing and recovery, for busy machines.
    """
    async with Stage(scenario) as stage:
        urls = stage.url("reader"), stage.url("bus")
        live_limit = LIVE_LIMIT + _SLOWNESS * patience
        async with Watch(stage.exchange, scenario.exchange, stage.symbol_of, *urls, live_limit) as watch:
            outcomes = await _Play(scenario, stage, watch, patience).run(seconds)
            failures, log = await _overall(scenario, stage, watch), stage.log
    return Result(name, outcomes, failures, log)


async def _overall(scenario: Scenario, stage: Stage, watch: Watch) -> list[str]:
    counts = await asyncio.to_thread(stage.counts)
    limits = _BUDGETS[scenario.exchange].items()
    failures = [f"{name} {counts[name]}, at most {limit}" for name, limit in limits if counts[name] > limit]
    failures += [f"wrong: {book}" for book in watch.bus.wrong[:_EXAMPLES]]
    failures += [f"stale as live: {book}" for book in watch.ages.stale[:_EXAMPLES]]
    return [*failures, *(["a feeder's log holds a traceback"] if "Traceback" in stage.log else [])]


class _Play:
    def __init__(self, scenario: Scenario, stage: Stage, watch: Watch, patience: float) -> None:
        self._scenario = scenario
        self._stage = stage
        self._watch = watch
        self._patience = patience
        self._counted: dict[str, int] = {}
        """Counts at the end of the last fault."""
        # Round-robin instead of random: a feeder delays repeated snapshot requests of one symbol.
        natives = list(stage.symbol_of)
        Random(scenario.seed).shuffle(natives)
        self._turns = cycle(natives)

    async def run(self, seconds: float) -> list[Outcome]:
        started = time.monotonic()
        if await self._recovery(self._watch.symbols, started, _START_LIMIT, calm=0.0) is None:
            raise RuntimeError(f"books were not live within {_START_LIMIT:g} s of the start:\n{self._stage.log}")
        if self._scenario.feeders > 1:
            await self._until_all_feeders_live()
        if self._scenario.reader_process:
            await self._until_reader_follows()
        outcomes: list[Outcome] = []
        deadline = time.monotonic() + seconds
        while not outcomes or time.monotonic() < deadline:
            for fault in self._scenario.fault:
                await asyncio.sleep(self._scenario.pause if outcomes else 0.0)
                outcomes.append(await self._play(fault))
                if outcomes[-1].recovered is None and not fault.never:
                    return outcomes  # later faults would fail too
        return outcomes

    async def _play(self, fault: Fault) -> Outcome:
        stage, watch = self._stage, self._watch
        hit = None if fault.hits is None else [next(self._turns) for _ in range(fault.hits)]
        symbols = watch.symbols if hit is None else [stage.symbol_of[native] for native in hit]
        if hit is not None:
            await self._until_deep()
        before = self._counted or await self._counts()
        seen = watch.begin()
        await self._inject(fault, hit)
        ended = time.monotonic()
        watch.await_fresh()
        failures = await self._stays_lost(symbols) if fault.never else []
        recovered = None if fault.never else await self._recovery(symbols, ended, _GIVE_UP * self._patience)
        await stage.calm()
        beside = sorted(set(seen.not_live).difference(symbols))  # a restart closes every book
        if fault.never:
            failures += await self._restart_feeder()
        if self._scenario.feeders > 1:
            await self._until_all_feeders_live()
        after = self._counted = await self._counts_later(before, fault.at_least)
        counts = {name: after[name] - before.get(name, 0) for name in after}
        outcome = _outcome(fault.name, symbols, seen, recovered, counts, watch.ages.oldest)
        failures += _judge(fault, outcome, self._patience)
        failures += [f"{symbol} was not hit and not live" for symbol in beside]
        failures += ["a feeder ended by itself"] if stage.dead_feeders else []
        outcome.failures.extend(failures)
        return outcome

    async def _inject(self, fault: Fault, hit: Sequence[str] | None) -> None:
        """Begin the fault, and end it if it has a duration; a fault that waits for a message keeps waiting."""
        for action in fault.begin:
            await self._stage.act(action, hit, fault.seconds)
        if fault.seconds:
            await asyncio.sleep(fault.seconds)
            for action in fault.end:
                await self._stage.act(action, hit)
            await self._stage.calm()

    async def _recovery(self, symbols: Sequence[str], since: float, limit: float, calm: float = _CALM) -> float | None:
        """Seconds from `since` until every symbol was live, fresh and stayed so; None if that did not happen."""
        watch, seen = self._watch, self._watch.seen
        while (now := time.monotonic()) < since + limit:
            watch.raise_failures()
            fresh = [watch.fresh_at(symbol) for symbol in symbols]
            disturbed = max((seen.not_live[symbol][1] for symbol in symbols if symbol in seen.not_live), default=0.0)
            if None not in fresh and now >= max(since, disturbed) + calm:
                times = [time_ for time_ in fresh if time_ is not None]
                return max(max(times), disturbed) - since
            await asyncio.sleep(LOOK_INTERVAL)
        return None

    async def _stays_lost(self, symbols: Sequence[str]) -> list[str]:
        """The books that do not stay lost for four times _CALM."""
        since, not_live = time.monotonic(), self._watch.seen.not_live
        missing = set(symbols)
        while missing and time.monotonic() < since + 4 * _CALM:
            await asyncio.sleep(LOOK_INTERVAL)
            missing = {name for name in symbols if name not in not_live or not_live[name][1] < since + 2 * _CALM}
        return [f"{name} is live" for name in sorted(missing)]

    async def _restart_feeder(self) -> list[str]:
        await self._stage.restart_feeder()
        self._watch.begin()
        recovered = await self._recovery(self._watch.symbols, time.monotonic(), _START_LIMIT)
        return ["a restarted feeder did not get the books either"] if recovered is None else []

    async def _until_deep(self) -> None:
        """Wait for the deep snapshots after the first ones: a late one would repair a lost message unnoticed."""
        deadline = time.monotonic() + _START_LIMIT
        weight, now = -_DEEP_WEIGHT, await self._weight()
        while now - weight >= _DEEP_WEIGHT and time.monotonic() < deadline:
            await asyncio.sleep(_CALM)
            weight, now = now, await self._weight()

    async def _weight(self) -> int:
        return (await asyncio.to_thread(self._stage.counts))["weight"]

    async def _until_all_feeders_live(self) -> None:
        """Wait until all feeders have recovered from the previous fault."""
        deadline = time.monotonic() + _START_LIMIT
        while not await asyncio.to_thread(self._stage.feeders_live):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a feeder has not all its books:\n{self._stage.log}")
            await asyncio.sleep(LOOK_INTERVAL)

    async def _until_reader_follows(self) -> None:
        """Wait for the second reader's first book: a reader stopped before it would miss nothing."""
        deadline = time.monotonic() + _START_LIMIT
        while not await asyncio.to_thread(self._stage.reader_follows):
            if time.monotonic() > deadline:
                raise RuntimeError("the second reader gets no books")
            await asyncio.sleep(LOOK_INTERVAL)

    async def _counts_later(self, before: dict[str, int], wanted: dict[str, int]) -> dict[str, int]:
        """The counts once they have risen as wanted, or after _COUNT_LIMIT; a reader reports once a second."""
        deadline = time.monotonic() + _COUNT_LIMIT
        while True:
            counts = await self._counts()
            rose = all(counts[name] - before.get(name, 0) >= least for name, least in wanted.items())
            if rose or time.monotonic() > deadline:
                return counts
            await asyncio.sleep(LOOK_INTERVAL)

    async def _counts(self) -> dict[str, int]:
        watch = self._watch
        await watch.judge()
        return await asyncio.to_thread(self._stage.counts) | {
            "compared": watch.bus.compared,
            "wrong": len(watch.bus.wrong),
            "unknown_ids": watch.bus.unknown_ids,
            "older_after_newer": watch.bus.older_after_newer,
            "stale": len(watch.ages.stale),
            "missed": watch.missed,
            "skipped": watch.skipped,
            "undecodable": watch.bus.undecodable,
        }


def _outcome(
    fault: str,
    symbols: Sequence[str],
    seen: Seen,
    recovered: float | None,
    counts: dict[str, int],
    oldest: float,
) -> Outcome:
    noticed = min((seen.not_live[symbol][0] for symbol in symbols if symbol in seen.not_live), default=None)
    saw = frozenset(state for symbol in symbols for state in seen.states.get(symbol, ()))
    return Outcome(fault, None if noticed is None else noticed - seen.since, recovered, saw, counts, oldest)


def _judge(fault: Fault, outcome: Outcome, patience: float) -> list[str]:
    counts, recovered, failures = outcome.counts, outcome.recovered, []
    forbidden = ["wrong", "unknown_ids", "stale"]
    forbidden += [] if fault.ids_fall else ["older_after_newer"]
    forbidden += [] if fault.may_miss else ["missed"]
    failures += [f"{name}: {counts[name]}" for name in forbidden if counts[name]]
    failures += [
        f"{name}: {counts[name]}, must be {least}" for name, least in fault.at_least.items() if counts[name] < least
    ]
    if unexpected := outcome.saw - set(fault.sees):
        failures.append(f"readers saw {', '.join(sorted(unexpected))}")
    if fault.notice is not None and (outcome.noticed is None or outcome.noticed > fault.notice * patience):
        failures.append(f"noticed after {outcome.noticed} s, limit {fault.notice:g} s")
    if recovered is None:
        failures += [] if fault.never else [f"not recovered within {_GIVE_UP * patience:g} s"]
    elif recovered > fault.recover * patience:
        failures.append(f"recovered after {recovered:.2f} s, limit {fault.recover:g} s")
    return failures
