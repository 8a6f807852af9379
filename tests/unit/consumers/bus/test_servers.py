"""Which server a reader takes, by what servers and Sentinels say."""

import pytest

from bookbus.consumers.bus.servers import ServerLocator

MASTER = [b"master", 10, []]


def replica(state: bytes) -> list[object]:
    return [b"slave", b"127.0.0.1", 6379, state, 10]


def test_one_server_is_the_one_to_read_from_whatever_it_is() -> None:
    servers = ServerLocator("redis://host:6380/2")

    assert servers.locate().host == "host"
    assert not servers.may_move


@pytest.mark.parametrize("url", ["redis+sentinel://one/main", "redis+sentinel://one/main?read=nearest", "redis://a,b"])
def test_where_there_are_several_another_may_become_the_right_one(url: str) -> None:
    assert ServerLocator(url).may_move


def test_a_reader_of_the_primary_leaves_a_server_that_became_a_replica() -> None:
    servers = ServerLocator("redis+sentinel://one/main")

    assert servers.wrong_role(MASTER) == ""
    assert servers.wrong_role(replica(b"connected")) == "it is no longer the primary"


@pytest.mark.parametrize("state", [b"connect", b"connecting", b"sync"])
def test_a_reader_of_the_nearest_leaves_a_replica_that_lost_its_primary(state: bytes) -> None:
    servers = ServerLocator("redis://one,two")

    assert servers.wrong_role(MASTER) == ""
    assert servers.wrong_role(replica(b"connected")) == ""
    assert servers.wrong_role(replica(state)) == "it has lost its primary"


def test_who_may_not_ask_for_the_role_believes() -> None:
    assert ServerLocator("redis://one,two").wrong_role(Exception("NOPERM")) == ""


@pytest.mark.parametrize("url", ["redis+sentinel://:hush@one", "http://:hush@one", "redis://:hush@one:x"])
def test_what_names_no_server_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)redis") as refusal:
        ServerLocator(url)

    assert "hush" not in str(refusal.value)
