"""The publish script on a real server."""

from collections.abc import Iterator

import pytest
import redis

from tests.support.publish_script_rules import Bus, PublishScriptRules


class TestOnARealServer(PublishScriptRules):
    @pytest.fixture
    def bus(self, redis_url: str) -> Iterator[Bus]:
        with redis.Redis.from_url(redis_url) as client:
            yield Bus(client)
