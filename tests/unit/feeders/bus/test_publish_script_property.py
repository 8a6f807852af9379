"""The publish script under any interleaving of up to three feeders that die, hang, lose their lines and come back."""

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bookbus.feeders.bus.publish_script import ACCEPTED
from tests.support.publish_script_world import (
    EPOCH_US,
    REPEAT_AFTER,
    STALL_LIMIT,
    STEP,
    Event,
    Fault,
    Line,
    Market,
    World,
)

DURATION = 60.0
SLOWEST = 0.5
"""A line's latency plus batching is at most this."""

REACTION = REPEAT_AFTER + SLOWEST + 4 * STEP
"""Within this time a healthy line has made itself heard at the server."""

durations = st.floats(0.05, 15.0)
faults = st.builds(
    Fault,
    kind=st.sampled_from(["kill", "disconnect", "pause", "silence"]),
    gap=st.floats(0.1, 12.0),
    duration=durations,
)
lines = st.builds(
    Line,
    latency=st.floats(0.0, 0.2),
    batching=st.floats(0.0, 0.3),
    resync=st.floats(0.05, 3.0),
    faults=st.lists(faults, max_size=8),
)
phases = st.tuples(st.sampled_from([0.05, 0.3, 1.7, 4.0, 30.0]), st.floats(1.0, 20.0))


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """Busy and quiet in turns."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    times: list[float] = []
    now = 0.0
    for interval, length in draw(st.lists(phases, min_size=1, max_size=6)):
        end = now + length
        while now < end:
            now += chance.expovariate(1 / interval)
            times.append(now)
    return Market(times)


worlds = st.builds(
    World,
    market=markets(),
    lines=st.lists(lines, min_size=1, max_size=3),
    data_losses=st.lists(st.floats(0.0, DURATION), max_size=3),
)


def judge(world: World) -> list[str]:
    """Everything in the record that may not happen."""
    rules = (older_after_newer, confirmed_by_nobody, not_live_beside_a_healthy_line, blinded_by_a_twin, wrong_seqs)
    return [wrong for rule in rules for wrong in rule(world)]


def older_after_newer(world: World) -> list[str]:
    newest, wrong = 0, []
    for number, event in enumerate(world.events):
        if number in world.lost_before:
            newest = 0
        if event.update_id < newest:
            wrong.append(f"{event.time:.2f} s: {event.update_id} after {newest}")
        newest = max(newest, event.update_id)
    return wrong


def confirmed_by_nobody(world: World) -> list[str]:
    """A live book is the exchange's true one but for delays: the line's, the repetition's, a stop not yet noticed."""
    allowed = SLOWEST + REPEAT_AFTER + STALL_LIMIT + 4 * STEP
    return [
        f"{event.time:.2f} s: live with {event.update_id}, replaced at {world.market.replaced_at(event.update_id):.2f}"
        for event in world.events
        if event.state == "live" and event.time - world.market.replaced_at(event.update_id) > allowed
    ]


def not_live_beside_a_healthy_line(world: World) -> list[str]:
    wrong = []
    last_live = 0.0
    for sample in world.samples:
        if sample.state == "live":
            last_live = sample.time
        elif sample.healthy_since is not None and sample.time - max(last_live, sample.healthy_since) > REACTION:
            wrong.append(f"{sample.time:.2f} s: {sample.state} since {last_live:.2f} beside a healthy line")
    return wrong


def blinded_by_a_twin(world: World) -> list[str]:
    """A line that fails says so in vain while another has made itself heard since the server last lost its data."""
    samples = {round(sample.time / STEP): sample for sample in world.samples}

    def heard_since(event: Event, healthy_since: float) -> float:
        return max(healthy_since, *(loss for loss in [0.0, *world.data_losses] if loss <= event.time))

    return [
        f"{event.time:.2f} s: {event.state} beside a line healthy since {since:.2f}"
        for event in world.events
        if event.state != "live"
        and (since := samples[round(event.time / STEP)].healthy_since) is not None
        and event.time - heard_since(event, since) > REACTION
    ]


def wrong_seqs(world: World) -> list[str]:
    """Rising by one with each accepted book, by more only where the data was lost, and the clock at first."""
    wrong = []
    accepted = [(number, event) for number, event in enumerate(world.events) if event.reply == ACCEPTED]
    for (number_before, before), (number, event) in pairwise(accepted):
        lost = any(number_before < place <= number for place in world.lost_before)
        step = event.seq - before.seq
        if step != 1 and not (lost and step > 1):
            wrong.append(f"{event.time:.2f} s: seq went up by {step}")
    if accepted and accepted[0][1].seq != EPOCH_US + round(accepted[0][1].time * 1e6):
        wrong.append(f"the first seq is {accepted[0][1].seq}")
    return wrong


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_no_interleaving_breaks_a_rule(world: World) -> None:
    world.run(DURATION)

    assert judge(world) == []
