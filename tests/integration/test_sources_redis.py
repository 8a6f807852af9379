"""The source `redis`: a live book, or an error with the reason."""

import threading

import pytest
import redis

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.consumers.sources import SourceError, SourceSettings, open_source
from tests.support.writer import BusWriter


def settings(url: str) -> SourceSettings:
    return SourceSettings(redis_url=url, timeout=0.3)


def test_it_opens_with_a_live_book(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        writer = BusWriter(client)
        writer.update("BTC-USDT", update_id=7)

        with writer.confirming(), open_source("redis", ["BTC"], settings(redis_url)) as provider:
            assert isinstance(provider, RedisMarketDataProvider)
            assert provider.read("BTC").require_live().update_id == 7


def test_without_a_feeder_it_is_an_error(redis_url: str) -> None:
    threads = threading.active_count()

    with pytest.raises(SourceError, match=r"source redis: not live within 0\.3 s: BTC-USDT: missing .*`make feeder`"):
        open_source("redis", ["BTC"], settings(redis_url))

    assert threading.active_count() == threads


def test_with_a_suspect_book_it_is_an_error(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        writer = BusWriter(client)
        writer.update("BTC-USDT", update_id=7)
        writer.update("BTC-USDT", update_id=8, state="suspect")

        with pytest.raises(SourceError, match="BTC-USDT: suspect"):
            open_source("redis", ["BTC"], settings(redis_url))
