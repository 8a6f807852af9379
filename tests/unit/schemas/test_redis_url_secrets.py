"""What of a URL may be shown, and a password put into one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import parse_url

from bookbus.schemas.redis_url import masked, redacted, secrets_of, with_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6380/3", "redis://127.0.0.1:6380/3"),
        ("redis://", "redis://"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("rediss://ada:s3cret@h:1/2?ssl_ca_certs=ca.pem", "rediss://ada:***@h:1/2"),
        ("redis://h/0?password=s3cret", "redis://h/0"),
        ("unix://:s3cret@/run/r.sock?db=1", "unix://:***@/run/r.sock"),
        ("redis+sentinel://:s3cret@one:26379,two:26379/books", "redis+sentinel://:***@one:26379,two:26379/books"),
        ("wss://ada:s3cret@proxy/ws?token=s3cret", "wss://ada:***@proxy/ws"),
        ("redis://s3cret@h", "redis://***@h"),
    ],
)
def test_a_url_is_shown_without_password_and_options(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        ":s3cret@h:6379",
        "s3cret@h",
        "redis:s3cret@h",
        "redis:/:s3cret@h",
        "//:s3cret@h",
        "s3cret",
        "redis://:s3/s3cret@h/0",
        "redis://:s3#s3cret@h/0",
        "redis://:s3?s3cret@h/0",
        "redis://:s3@s3?s3cret@h",
        "redis://ada:s3cret",
        "redis://h:s3cret/0",
        "redis://[s3cret",
        "redis://h/0?password=s3@s3cret",
    ],
)
def test_nothing_is_shown_of_what_is_no_sound_url(url: str) -> None:
    assert masked(url) == "***"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_password_kept_apart_reaches_the_url_as_it_is_and_is_not_shown(password: str) -> None:
    url = with_password("redis://ada@h:6379/0", password)

    assert parse_url(url)["password"] == password  # type: ignore[no-untyped-call]
    assert masked(url) == "redis://ada:***@h:6379/0"


@pytest.mark.parametrize(
    "url", ["redis://h/0", "redis://:own@h/0", "redis://ada:own@h", "unix:///run/r.sock", "h:6379"]
)
def test_a_password_goes_only_to_a_user_who_was_named_without_one(url: str) -> None:
    assert with_password(url, "s3cret") == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://ada:s3%20cret@h",
        "redis://h?password=s3%20cret",
        "unix://:s3%20cret@/run/r.sock",
        "redis+sentinel://h/s?sentinel_password=s3%20cret",
        "wss://ada:s3%20cret@h/ws",
    ],
)
def test_secrets_of_a_url_are_removed_from_other_texts(url: str) -> None:
    assert redacted(ValueError("unknown command AUTH ada s3 cret"), secrets_of(url)) == "unknown command AUTH ada ***"


@pytest.mark.parametrize("url", ["redis://h", "redis://ada@h", "redis://[", ""])
def test_a_url_without_secrets_changes_no_text(url: str) -> None:
    assert redacted("ada at h", secrets_of(url)) == "ada at h"
