"""The times at which the update id of a simulated market changed."""

from bookbus.feeders.simulator.core.exchange import Timeline


def timeline_of(*update_ids: int, limit: int = 100) -> Timeline:
    """A market that has the first id at microsecond 1, the second at microsecond 2, …"""
    timeline = Timeline(limit)
    for time_us, update_id in enumerate(update_ids, 1):
        timeline.record(update_id, time_us)
    return timeline


def test_a_change_is_noted_once_and_with_its_time() -> None:
    assert timeline_of(7, 7, 9, 9, 9, 3).since(0) == [(1, 7), (3, 9), (6, 3)]


def test_since_a_time_it_begins_with_the_id_of_that_time() -> None:
    timeline = timeline_of(7, 7, 9, 9, 9, 3)

    assert timeline.since(2) == [(1, 7), (3, 9), (6, 3)]
    assert timeline.since(3) == timeline.since(5) == [(3, 9), (6, 3)]
    assert timeline.since(1000) == [(6, 3)]
    assert timeline_of().since(0) == []


def test_it_forgets_the_oldest_changes() -> None:
    ids = [update_id for _, update_id in timeline_of(*range(1000), limit=10).since(0)]

    assert ids == list(range(1000 - len(ids), 1000))
    assert 10 <= len(ids) <= 20
