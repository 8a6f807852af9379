"""URLs of the bus, and what is said when it cannot be reached."""

import ssl
from pathlib import Path

import pytest

from bookbus.consumers.bus.connection import DEFAULT_URL, BusAddress, refused, unreachable


def test_the_default_is_this_machine() -> None:
    address = BusAddress.parse(DEFAULT_URL)

    assert (address.host, address.port, address.database, address.password, address.tls) == (
        "127.0.0.1",
        6379,
        0,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("url", "masked", "parts"),
    [
        ("redis://h", "redis://h", ("h", 6379, None, 0, None, None)),
        ("redis://u:p%40ss@h:1/2", "redis://u:***@h:1/2", ("h", 1, None, 2, "u", "p@ss")),
        ("redis://:open@h/1?socket_timeout=3", "redis://:***@h/1", ("h", 6379, None, 1, None, "open")),
        ("unix:///tmp/s.sock?db=3", "unix:///tmp/s.sock", ("localhost", 6379, "/tmp/s.sock", 3, None, None)),  # noqa: S108
    ],
)
def test_a_url_is_taken_apart_and_shown_without_secrets(
    url: str, masked: str, parts: tuple[str, int, str | None, int, str | None, str | None]
) -> None:
    address = BusAddress.parse(url)

    assert address.masked == masked
    assert parts == (
        address.host,
        address.port,
        address.path,
        address.database,
        address.username,
        address.password,
    )
    assert address.password is None or address.password not in repr(address)


@pytest.mark.parametrize(
    "url", ["", "h:6379", "http://:secret@h", "redis://:secret@h:port/0", "redis+sentinel://:secret@h:1/s"]
)
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="not a usable Redis URL: write redis://host:6379/0") as caught:
        BusAddress.parse(url)

    assert "secret" not in str(caught.value)


def test_tls_checks_certificate_and_name_unless_told_otherwise() -> None:
    checked = BusAddress.parse("rediss://h").tls
    unchecked = BusAddress.parse("rediss://h?ssl_cert_reqs=none").tls
    any_name = BusAddress.parse("rediss://h?ssl_check_hostname=False").tls

    assert checked is not None
    assert unchecked is not None
    assert any_name is not None
    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_NONE, False)
    assert (any_name.verify_mode, any_name.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        BusAddress.parse(f"rediss://h?ssl_ca_certs={tmp_path / 'absent.pem'}")


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
    error = refused(BusAddress.parse("redis://:secret@h/0"), message)

    assert expected in str(error)
    assert "secret" not in str(error)


def test_nobody_there_is_told_with_what_to_do() -> None:
    error = unreachable(BusAddress.parse(DEFAULT_URL), ConnectionRefusedError(111, "Connection refused"))

    assert str(error) == (
        "no Redis answers at redis://127.0.0.1:6379/0 (connection refused); "
        "start one with `make redis` or `docker compose up redis`, or name another by its URL"
    )
