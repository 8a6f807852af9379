"""Redis URLs, and what of them may be shown."""

import ssl

import pytest

from bookbus.feeders.servers.address import RedisAddress, parse_address


def plain(url: str) -> tuple[object, ...]:
    address = parse_address(url)
    return (
        address.masked,
        address.host,
        address.port,
        address.path,
        address.database,
        address.username,
        address.password,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:6380/3", ("redis://127.0.0.1:6380/3", "127.0.0.1", 6380, None, 3, None, None)),
        ("redis://", ("redis://", "localhost", 6379, None, 0, None, None)),
        ("redis://[::1]:7/0", ("redis://[::1]:7/0", "::1", 7, None, 0, None, None)),
        ("redis://:p%40ss@h/0", ("redis://:***@h/0", "h", 6379, None, 0, None, "p@ss")),
        ("redis://ada:pw@h?db=4", ("redis://ada:***@h", "h", 6379, None, 4, "ada", "pw")),
        ("redis://h/0?password=pw", ("redis://h/0", "h", 6379, None, 0, None, "pw")),
        ("unix://:pw@/run/r.sock?db=1", ("unix://:***@/run/r.sock", "localhost", 6379, "/run/r.sock", 1, None, "pw")),
    ],
)
def test_a_url_says_where_and_who(url: str, expected: tuple[object, ...]) -> None:
    assert plain(url) == expected


def test_tls_is_checked_unless_the_url_says_otherwise() -> None:
    checked, unchecked, unnamed = (
        parse_address(f"rediss://h:6380/0{options}").tls
        for options in ("", "?ssl_cert_reqs=none", "?ssl_check_hostname=false")
    )

    assert checked is not None
    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert unchecked is not None
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_NONE, False)
    assert unnamed is not None
    assert (unnamed.verify_mode, unnamed.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert parse_address("redis://h").tls is None


@pytest.mark.parametrize(
    "url", ["http://:s3cret@h", "h:6379", "", "redis://:s3cret@h:port/0", "rediss://:s3cret@h?ssl_ca_certs=/no/such"]
)
def test_what_is_no_usable_url_is_an_error_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL") as caught:
        parse_address(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_address_does_not_show_its_password() -> None:
    address = parse_address("redis://ada:s3cret@h/0")

    assert isinstance(address, RedisAddress)
    assert "s3cret" not in repr(address)
