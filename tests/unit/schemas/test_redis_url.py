"""The forms a Redis URL may have, and the servers they name."""

import pytest

from bookbus.schemas.redis_url import DEFAULT_URL, Login, TlsOptions, no_primary, parse_redis_url


def parts(url: str) -> tuple[object, ...]:
    (server,) = parse_redis_url(url).servers
    login = server.login
    return (server.masked, server.host, server.port, server.path, login.database, login.username, login.password)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (DEFAULT_URL, ("redis://127.0.0.1:6379/0", "127.0.0.1", 6379, None, 0, None, None)),
        ("redis://127.0.0.1:6380/3", ("redis://127.0.0.1:6380/3", "127.0.0.1", 6380, None, 3, None, None)),
        ("redis://", ("redis://", "localhost", 6379, None, 0, None, None)),
        ("redis://h", ("redis://h", "h", 6379, None, 0, None, None)),
        ("redis://[::1]:7/0", ("redis://[::1]:7/0", "::1", 7, None, 0, None, None)),
        ("redis://:p%40ss@h/0", ("redis://:***@h/0", "h", 6379, None, 0, None, "p@ss")),
        ("redis://u:p%40ss@h:1/2", ("redis://u:***@h:1/2", "h", 1, None, 2, "u", "p@ss")),
        ("redis://ada:pw@h?db=4", ("redis://ada:***@h", "h", 6379, None, 4, "ada", "pw")),
        ("redis://h/0?password=pw", ("redis://h/0", "h", 6379, None, 0, None, "pw")),
        ("redis://:open@h/1?socket_timeout=3", ("redis://:***@h/1", "h", 6379, None, 1, None, "open")),
        ("unix://:pw@/run/r.sock?db=1", ("unix://:***@/run/r.sock", "localhost", 6379, "/run/r.sock", 1, None, "pw")),
        (
            "unix:///r.sock?db=3",
            ("unix:///r.sock", "localhost", 6379, "/r.sock", 3, None, None),
        ),
    ],
)
def test_a_url_says_where_and_who(url: str, expected: tuple[object, ...]) -> None:
    assert parts(url) == expected


def test_one_server_is_what_its_url_says() -> None:
    url = parse_redis_url("rediss://user:pa%2Fss@host:6380/3?ssl_ca_certs=ca.pem")

    assert (url.kind, url.nearest) == ("server", False)
    assert url.servers[0].client_arguments(2.0) == {
        "host": "host",
        "port": 6380,
        "db": 3,
        "username": "user",
        "password": "pa/ss",
        "socket_timeout": 2.0,
        "socket_connect_timeout": 2.0,
        "ssl": True,
        "ssl_ca_certs": "ca.pem",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
    }


def test_a_socket_is_one_server() -> None:
    (server,) = parse_redis_url("unix:///r.sock?db=2&socket_timeout=0.5").servers

    assert server.client_arguments(2.0) == {
        "unix_socket_path": "/r.sock",
        "db": 2,
        "username": None,
        "password": None,
        "socket_timeout": 0.5,
        "socket_connect_timeout": 2.0,
    }


def test_tls_is_checked_unless_the_url_says_otherwise() -> None:
    checked, unchecked, unnamed, own = (
        parse_redis_url(f"rediss://h:6380/0{options}").login.tls
        for options in (
            *("", "?ssl_cert_reqs=none", "?ssl_check_hostname=False"),
            "?ssl_ca_path=/ca&ssl_certfile=own.crt&ssl_keyfile=own.key",
        )
    )

    assert checked == TlsOptions()
    assert unchecked == TlsOptions(check_certificate=False, check_hostname=False)
    assert unnamed == TlsOptions(check_hostname=False)
    assert own == TlsOptions(ca_path="/ca", certificate="own.crt", key="own.key")
    assert parse_redis_url("redis://h?ssl_cert_reqs=none").login.tls is None


def test_of_several_servers_readers_take_the_nearest() -> None:
    url = parse_redis_url("redis://:secret@here,there:6380/1")

    assert (url.kind, url.nearest) == ("server", True)
    assert [server.masked for server in url.servers] == ["redis://:***@here:6379/1", "redis://:***@there:6380/1"]
    assert {server.login for server in url.servers} == {Login(1, None, "secret")}


def test_sentinels_know_a_service_whose_servers_share_login_and_database() -> None:
    url = parse_redis_url("rediss+sentinel://u:p@one,two:5000,[::1]/main/2?read=nearest&sentinel_password=s&a=b")

    assert (url.kind, url.servers) == ("sentinel", ())
    assert url.hosts == (("one", 26379), ("two", 5000), ("::1", 26379))
    assert (url.service, url.nearest, url.sentinel_login) == ("main", True, Login(0, None, "s", TlsOptions()))
    server = url.server_at(("fd00::1", 7000))
    assert (server.masked, server.host, server.port) == ("rediss://u:***@[fd00::1]:7000/2", "fd00::1", 7000)
    assert server.login == Login(2, "u", "p", TlsOptions())


def test_readers_of_a_service_take_the_primary_unless_told_otherwise() -> None:
    assert not parse_redis_url("redis+sentinel://one/main").nearest


def test_a_cluster_is_known_by_some_of_its_nodes() -> None:
    url = parse_redis_url("redis+cluster://:secret@one:7000,two:7001")

    assert (url.kind, url.hosts) == ("cluster", (("one", 7000), ("two", 7001)))
    assert url.server_at(("three", 7002)).masked == "redis://:***@three:7002/0"
    assert url.server_at(("three", 7002)).login == Login(0, None, "secret")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("unix://", "names no socket"),
        ("redis+cluster://:hush@host/0?db=1", "database 0 alone"),
        ("redis://:hush@host?socket_timeout=soon", "socket_timeout"),
        ("redis://:hush@host?socket_connect_timeout=nan", "socket_connect_timeout"),
        ("http://:hush@host", "not a usable Redis URL: write it like redis://host:6379/0"),
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
        parse_redis_url(url)

    assert "hush" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_no_password_shows_in_what_is_printed_of_it() -> None:
    url = parse_redis_url("redis+sentinel://u:hush@one/main?sentinel_password=hush")

    assert "hush" not in repr(url)
    assert "hush" not in repr(url.server_at(("two", 6379)))


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
