"""Which node has which slot, from what nodes say."""

import pytest
import redis.crc
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.redis_cluster import ClusterView, SlotMap, slot_of
from bookbus.schemas.redis_names import RedisNames

ASKED = ("asked", 7000)
BTC = RedisNames().book("binance", "BTC-USDT").encode()
REPLY = [
    [0, 6968, [b"one", 7001, b"id", []], [b"replica", 7002, b"id", []]],
    [6970, 16383, [b"", 7003, b"id"]],
]


@given(symbol=st.from_regex(r"[A-Z0-9]{1,10}-[A-Z0-9]{1,10}", fullmatch=True))
def test_slots_are_those_of_the_servers(symbol: str) -> None:
    name = RedisNames().book("binance", symbol).encode()

    assert slot_of(name) == redis.crc.key_slot(name)


def test_the_primary_of_a_slot_has_its_keys() -> None:
    slots = SlotMap.parse([[0, 16383, [b"one", 7001, b"id"], [b"two", 7002, b"id"]]], ASKED)

    assert slots.node_of(BTC) == ("one", 7001)
    assert slots.nodes == {("one", 7001)}


def test_a_node_without_a_name_is_where_it_was_asked() -> None:
    assert SlotMap.parse(REPLY, ASKED).nodes == {("one", 7001), ("asked", 7003)}


def test_a_slot_that_nobody_has_is_nowhere() -> None:
    assert slot_of(BTC) == 6969 + 1
    assert SlotMap.parse([[0, 10, [b"one", 7001, b"id"]]], ASKED).node_of(BTC) is None


def test_a_node_tells_where_a_slot_has_moved() -> None:
    slots = SlotMap.parse(REPLY, ASKED)

    moved = slots.moved(f"MOVED {slot_of(BTC)} two:7009", ASKED)

    assert moved.node_of(BTC) == ("two", 7009)
    assert slots.node_of(BTC) == ("asked", 7003)
    assert moved.moved(f"MOVED {slot_of(BTC)} :7010", ASKED).node_of(BTC) == ("asked", 7010)


@pytest.mark.parametrize("reply", [None, 7, [[0]], [[0, 1, [b"one"]]], [[0, 1, [b"one", b"x"]]], b"ERR"])
def test_anything_else_is_no_list_of_slots(reply: object) -> None:
    with pytest.raises(ValueError, match="no list of slots"):
        SlotMap.parse(reply, ASKED)


def test_of_several_views_that_of_a_whole_cluster_and_a_later_epoch_holds() -> None:
    failed, old, new = (
        ClusterView.parse(b"cluster_state:%b\r\ncluster_current_epoch:%d\r\n" % (state, epoch), REPLY, ASKED)
        for state, epoch in ((b"fail", 9), (b"ok", 3), (b"ok", 4))
    )

    assert max([old, new, failed], key=lambda view: view.rank) is new
    assert (failed.is_ok, new.is_ok) == (False, True)
    assert new.slots.nodes == {("one", 7001), ("asked", 7003)}


@pytest.mark.parametrize(("info", "slots"), [(Exception("NOPERM no"), REPLY), (b"cluster_current_epoch:x", REPLY)])
def test_an_error_is_no_view_of_the_cluster(info: object, slots: object) -> None:
    with pytest.raises(ValueError, match=r"asked:7000 does not describe the cluster: NOPERM no|invalid literal"):
        ClusterView.parse(info, slots, ASKED)
