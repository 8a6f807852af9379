"""`health`: whether this host's feeder shows signs of life; for container health checks."""

import asyncio
import socket
from typing import Annotated

import typer
from redis.exceptions import RedisError

from feeders.commands.options import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, fail
from feeders.heartbeat import control_client
from schemas.redis_names import RedisNames
from schemas.url_secrets import masked

EXAMPLES = """
Exit code 0 if a feeder on this host told within the last seconds that it lives.

\b
  python -m feeders health
  python -m feeders health --host feeder-1
"""


def health(
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    host: Annotated[str, typer.Option(envvar="BOOKBUS_HEALTH_HOST", help="Host name; this one by default.")] = "",
) -> None:
    """Exit code 0 if a feeder on this host lives."""
    try:
        alive = asyncio.run(_alive(redis, RedisNames(prefix), host or socket.gethostname()))
    except ValueError as error:
        fail(str(error))
    except (RedisError, OSError, TimeoutError) as error:
        fail(f"no answer from {masked(redis)}: {error}")
    if not alive:
        fail(f"no feeder on {host or socket.gethostname()} shows signs of life")
    typer.echo("\n".join(alive))


health.__doc__ = EXAMPLES


async def _alive(url: str, names: RedisNames, host: str) -> list[str]:
    redis = control_client(url)
    try:
        feeders = [key async for key in redis.scan_iter(match=names.feeder("*"), count=1000)]
        hosts = [await redis.hget(key, "host") for key in feeders]
        return [key.decode() for key, found in zip(feeders, hosts, strict=True) if found == host.encode()]
    finally:
        await redis.aclose()
