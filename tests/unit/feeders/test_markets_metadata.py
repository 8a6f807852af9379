"""An exchange's instruments: asked for, cached, and judged by spelling when neither is to be had."""

import os
from pathlib import Path

import pytest

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE as BINANCE
from bookbus.feeders.markets import MAX_CACHE_AGE, MetadataSource, default_cache_directory
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.schemas.instruments import Instrument, SymbolError
from tests.support.fake_venue import FakeVenue

ODD = [Instrument("binance", "ODD", "COIN", "ODDCOIN")]
"""A market that no spelling rule would split this way."""


def source(venue: FakeVenue, directory: Path, url: str = "http://127.0.0.1:1") -> MetadataSource:
    return MetadataSource(venue, RestClient(url, WeightBudget(6000)), directory)


def venue(metadata: bytes | Exception = b"metadata") -> FakeVenue:
    made = FakeVenue()
    made.metadata, made.listed = metadata, ODD
    return made


async def test_the_exchanges_own_list_is_used_and_kept(tmp_path: Path) -> None:
    of = source(venue(), tmp_path / "new" / "cache")

    registry = await of.registry()

    assert registry.resolve("ODD-COIN").native == "ODDCOIN"
    assert of.cache_file.read_bytes() == b"metadata"
    assert [file.name for file in of.cache_directory.iterdir()] == ["binance-127.0.0.1_1.json"]


@pytest.mark.parametrize("error", [RestError("HTTP 503"), MetadataError("no list")])
async def test_the_cached_list_stands_in_with_a_warning(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await source(venue(), tmp_path).registry()

    registry = await source(venue(error), tmp_path).registry()

    assert registry.resolve("ODD-COIN").native == "ODDCOIN"
    assert f"using the cached instruments of binance: {error}" in caplog.text
    with pytest.raises(SymbolError):
        registry.resolve("BTC-USDT")


async def test_another_hosts_list_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    await source(venue(), tmp_path, "http://127.0.0.1:1").registry()

    registry = await source(venue(RestError("HTTP 503")), tmp_path, "http://127.0.0.1:2").registry()

    assert registry.resolve("BTCUSDT").symbol == "BTC-USDT"


@pytest.mark.parametrize("seconds", [-MAX_CACHE_AGE - 60, 600], ids=["too old", "of a clock that was set back"])
async def test_a_list_of_another_day_or_the_future_is_not_used(tmp_path: Path, seconds: float) -> None:
    of = source(venue(), tmp_path)
    await of.registry()
    written_at = of.cache_file.stat().st_mtime + seconds
    os.utime(of.cache_file, (written_at, written_at))

    registry = await source(venue(RestError("HTTP 503")), tmp_path).registry()

    assert registry.resolve("BTCUSDT").symbol == "BTC-USDT"


@pytest.mark.parametrize("hostile", [b"", b"\xff\xfe", b"{}", b"[1,2", b'{"symbols":[{"symbol":7}]}', b"null"])
async def test_a_cache_that_is_no_list_is_as_good_as_none(tmp_path: Path, hostile: bytes) -> None:
    of = MetadataSource(BINANCE, RestClient("http://127.0.0.1:1", WeightBudget(6000), timeout=0.5), tmp_path)
    of.cache_file.write_bytes(hostile)

    registry = await of.registry()
    await of.rest.close()

    assert registry.resolve("BTCUSDT").symbol == "BTC-USDT"


async def test_a_cache_that_cannot_be_written_costs_a_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")

    registry = await source(venue(), tmp_path / "file").registry()

    assert registry.resolve("ODD-COIN").native == "ODDCOIN"
    assert "cannot cache the instruments" in caplog.text


@pytest.mark.parametrize("login", ["user:s3cret@", "s3cret@", ":s3cret@", "user:s3cret%40x@"])
async def test_no_password_is_in_the_name_of_the_cache(tmp_path: Path, login: str) -> None:
    of = source(venue(), tmp_path, f"https://{login}proxy.example:8443/binance")

    await of.registry()

    assert of.cache_file == tmp_path / "binance-proxy.example_8443.json"
    assert of.cache_file.read_bytes() == b"metadata"


def test_a_user_without_a_home_has_a_cache_in_the_directory_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    assert default_cache_directory() == tmp_path / f"bookbus-{os.getuid()}"


async def test_the_cache_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await source(venue(), tmp_path).registry()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    monkeypatch.setattr("bookbus.feeders.markets._ROOT", 4712)

    registry = await source(venue(RestError("HTTP 503")), tmp_path).registry()

    assert registry.resolve("BTCUSDT").symbol == "BTC-USDT"
