"""TLS contexts, and what is said when the bus cannot be reached."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from bookbus.consumers.bus.connection import connect_failed, rejected, tls_context
from bookbus.feeders.bus.connection import tls_context as feeders_tls_context
from bookbus.schemas.redis_url import DEFAULT_URL, RedisServer, TlsOptions, parse_redis_url

both_packages = pytest.mark.parametrize("make", [tls_context, feeders_tls_context])


def server_of(url: str) -> RedisServer:
    (server,) = parse_redis_url(url).servers
    return server


@both_packages
def test_tls_checks_certificate_and_name_unless_told_otherwise(make: Callable[[TlsOptions], ssl.SSLContext]) -> None:
    checked, unchecked, any_name = (
        make(parse_redis_url(f"rediss://h{options}").login.tls or pytest.fail("no TLS"))
        for options in ("", "?ssl_cert_reqs=none", "?ssl_check_hostname=False")
    )

    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_NONE, False)
    assert (any_name.verify_mode, any_name.check_hostname) == (ssl.CERT_REQUIRED, False)


@both_packages
def test_a_certificate_that_cannot_be_read_is_told(
    make: Callable[[TlsOptions], ssl.SSLContext], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"Redis URL.*No such file") as caught:
        make(TlsOptions(ca_file=str(tmp_path / "absent.pem")))

    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("NOAUTH Authentication required.", "wants a user and its password"),
        ("WRONGPASS invalid username-password pair", "refuses this user name and password"),
        ("ERR AUTH <password> called without any password configured", "refuses this user name and password"),
        ("NOPERM User x has no permissions", "does not allow this user to read the bus"),
        ("LOADING Redis is loading the dataset in memory", "answers: LOADING"),
    ],
)
def test_what_the_server_says_is_told_with_what_it_means(message: str, expected: str) -> None:
    error = rejected(server_of("redis://:secret@h/0"), message)

    assert expected in str(error)
    assert "secret" not in str(error)


def test_nobody_there_is_told_with_what_to_do() -> None:
    error = connect_failed(server_of(DEFAULT_URL), ConnectionRefusedError(111, "Connection refused"))

    assert str(error) == (
        "no Redis answers at redis://127.0.0.1:6379/0 (connection refused); "
        "start one with `make redis` or `docker compose up redis`, or name another by its URL"
    )
