"""A host name that the system's resolver does not answer holds nobody up."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bookbus.consumers.background_loop import resolve_host
from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.cluster_reader import ClusterReader
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.bus.servers import control_client
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import parse_redis_url

LIMIT = 4.0
"""Seconds; the resolver takes far longer."""


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names are not resolved before the end of the test; addresses are, as always."""
    over, real = threading.Event(), socket.getaddrinfo

    def resolve(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
        if not flags & socket.AI_NUMERICHOST and host == "silent.example":
            over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
        return real(host, port, family, type, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    over.set()


@pytest.mark.parametrize("kind", ["redis://{}:6379/0", "redis+sentinel://{}:26379/bus/0"])
def test_start_and_stop_do_not_wait_for_the_resolver(silent_resolver: None, kind: str) -> None:
    provider = RedisMarketDataProvider(kind.format("silent.example"), "binance", ["BTC"])
    began = time.monotonic()

    with pytest.raises(BusConnectionError):
        provider.start()
    provider.stop()

    assert time.monotonic() - began < LIMIT


def test_stop_of_a_clusters_reader_does_not_wait_for_the_resolver(silent_resolver: None) -> None:
    reader = ClusterReader(
        parse_redis_url("redis+cluster://silent.example:6379"),
        BusTable("binance", RedisNames()),
        SymbolNames("binance"),
        ["BTC"],
        lambda *_: None,
    )
    reader.start()
    began = time.monotonic()
    reader.stop()

    assert time.monotonic() - began < LIMIT
    assert not reader.alive


def test_stop_ends_a_start_that_waits_for_the_resolver(silent_resolver: None) -> None:
    provider = RedisMarketDataProvider("redis://silent.example:6379/0", "binance", ["BTC"])
    errors: list[BusConnectionError] = []

    def start() -> None:
        try:
            provider.start()
        except BusConnectionError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    provider.stop()
    thread.join(LIMIT)

    assert time.monotonic() - began < LIMIT
    assert len(errors) == 1


@pytest.mark.parametrize("url", ["redis://silent.example:6379/0", "redis+sentinel://silent.example:26379/bus/0"])
def test_a_control_client_is_refused_within_its_limit(silent_resolver: None, url: str) -> None:
    began = time.monotonic()

    with pytest.raises(OSError, match=r"silent\.example not resolved within"):
        control_client(parse_redis_url(url), 0.2)

    assert time.monotonic() - began < LIMIT


def test_addresses_and_local_names_are_resolved() -> None:
    assert resolve_host("127.0.0.1", 6379, 1.0) == [(socket.AF_INET, ("127.0.0.1", 6379))]
    assert resolve_host("::1", 6379, 1.0) == [(socket.AF_INET6, ("::1", 6379, 0, 0))]
    assert (socket.AF_INET, ("127.0.0.1", 6379)) in resolve_host("localhost", 6379, 5.0)


@pytest.mark.parametrize("name", ["no.such.host.invalid", "a" * 64 + ".example", "\udcff"])
def test_a_name_that_cannot_be_resolved_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        resolve_host(name, 6379, 10.0)
