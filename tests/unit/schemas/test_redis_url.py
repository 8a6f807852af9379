"""The forms a bus URL may have, and the servers they name."""

import pytest

from bookbus.schemas.redis_url import no_primary, parse_servers


def test_one_server_is_what_its_url_says() -> None:
    servers = parse_servers("rediss://user:pa%2Fss@host:6380/3?ssl_ca_certs=ca.pem")

    assert (servers.kind, servers.nearest) == ("server", False)
    assert list(servers.urls()) == ["rediss://user:pa%2Fss@host:6380/3?ssl_ca_certs=ca.pem"]


def test_a_socket_is_one_server() -> None:
    servers = parse_servers("unix:///run/redis.sock?db=2")

    assert list(servers.urls()) == ["unix:///run/redis.sock?db=2"]


def test_of_several_servers_readers_take_the_nearest() -> None:
    servers = parse_servers("redis://:secret@here,there:6380/1")

    assert (servers.kind, servers.nearest) == ("server", True)
    assert list(servers.urls()) == ["redis://:secret@here:6379/1", "redis://:secret@there:6380/1"]


def test_sentinels_know_a_service_whose_servers_share_login_and_database() -> None:
    servers = parse_servers("rediss+sentinel://u:p@one,two:5000,[::1]/main/2?read=nearest&sentinel_password=s&a=b")

    assert servers.kind == "sentinel"
    assert servers.places == (("one", 26379), ("two", 5000), ("::1", 26379))
    assert (servers.service, servers.nearest, servers.sentinel_login) == ("main", True, (None, "s"))
    assert servers.url(("fd00::1", 7000)) == "rediss://u:p@[fd00::1]:7000/2?a=b"


def test_readers_of_a_service_take_the_primary_unless_told_otherwise() -> None:
    assert not parse_servers("redis+sentinel://one/main").nearest


def test_a_cluster_is_known_by_some_of_its_nodes() -> None:
    servers = parse_servers("redis+cluster://:secret@one:7000,two:7001")

    assert (servers.kind, servers.places) == ("cluster", (("one", 7000), ("two", 7001)))
    assert servers.url(("three", 7002)) == "redis://:secret@three:7002/0"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://:hush@host", "redis\\+cluster://"),
        ("host:6379", "redis\\+cluster://"),
        ("redis://:hush@[host/0", "redis\\+cluster://"),
        ("", "redis\\+cluster://"),
        ("redis+sentinel://:hush@host:26379", "name yours"),
        ("redis+sentinel:///main", "names no host"),
        ("redis+cluster://", "names no host"),
        ("redis+cluster://:hush@host/1", "database 0 alone"),
        ("redis://:hush@host:port/0", "host:port,host:port"),
        ("redis://:hush@host:70000/0", "host:port,host:port"),
        ("redis://:hush@one,,two/0", "host:port,host:port"),
        ("redis://:hush@host/main", "number of a database"),
        ("redis+sentinel://:hush@host/main/0/1", "number of a database"),
        ("redis+cluster://:hush@host?read=nearest", "only with redis\\+sentinel"),
        ("redis+sentinel://:hush@host/main?read=furthest", "only with redis\\+sentinel"),
    ],
)
def test_what_makes_no_sense_is_refused_without_repeating_the_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse_servers(url)

    assert "hush" not in str(refusal.value)


def test_no_password_shows_in_what_is_printed_of_it() -> None:
    assert "hush" not in repr(parse_servers("redis+sentinel://u:hush@one/main?sentinel_password=hush"))


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ("Error 111 connecting to a:1. Connection refused.", ""),
        (
            "Error 111 connecting to a:1. Connection refused.\n"
            "Error 1 connecting to b:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006).",
            " ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed)",
        ),
        (
            "invalid username-password pair or user is disabled.",
            " (invalid username-password pair or user is disabled.)",
        ),
    ],
)
def test_one_cause_is_left_of_what_went_wrong_with_each_sentinel(told: str, cause: str) -> None:
    assert no_primary("m", told) == f"none of these Sentinels knows a primary of m that is up{cause}"
