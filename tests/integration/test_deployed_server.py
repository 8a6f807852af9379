"""The server configuration that compose uses is one that a server takes."""

from pathlib import Path

import redis

from bookbus.feeders.redis_server import LocalServer

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "valkey.conf"


def test_server_takes_the_configuration_that_is_deployed() -> None:
    with LocalServer(options=("--include", str(CONFIGURATION))) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy", "protected-mode")
        limits = client.config_get("client-output-buffer-limit")["client-output-buffer-limit"]

    assert settings == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(2**30),
        "maxmemory-policy": "noeviction",
        "protected-mode": "no",
    }
    assert limits.endswith("pubsub 8388608 2097152 5")
