"""Asking the nodes of a cluster who has which slot."""

import asyncio
from collections.abc import Iterable

from bookbus.feeders.bus.connection import RedisConnectionError, open_connection
from bookbus.feeders.servers.address import parse_address
from bookbus.schemas.redis_cluster import SlotMap
from bookbus.schemas.redis_url import BusServers, Place

_TIMEOUT = 0.5


async def ask_slots(servers: BusServers, known: Iterable[Place], shown: str) -> SlotMap:
    """The map of the node that knows most of the cluster. Raises RedisConnectionError if no node answers."""
    places = {*servers.places, *known}
    answers = await asyncio.gather(*(_ask(servers, place) for place in places))
    found = [answer for answer in answers if isinstance(answer, tuple)]
    if not found:
        causes = sorted(str(answer) for answer in answers)
        raise RedisConnectionError(f"no node of {shown} tells who has which slot ({causes[0]})")
    return max(found, key=lambda answer: answer[0])[1]


async def _ask(servers: BusServers, place: Place) -> tuple[tuple[bool, int], SlotMap] | str:
    """How much the node's word counts, and its map; else why there is none."""
    try:
        connection = await open_connection(
            parse_address(servers.url(place)), connect_timeout=_TIMEOUT, reply_timeout=_TIMEOUT
        )
    except RedisConnectionError as error:
        return str(error)
    try:
        info, slots = await connection.call("CLUSTER", "INFO"), await connection.call("CLUSTER", "SLOTS")
        if not isinstance(info, bytes) or not isinstance(slots, list):
            refusal = slots if isinstance(info, bytes) else info
            return f"{place[0]}:{place[1]} answers {refusal!r:.100}"
        fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
        # Who is cut off from the others knows that the cluster failed, or an epoch that is over.
        weight = fields.get(b"cluster_state") == b"ok", int(fields.get(b"cluster_current_epoch", 0))
        return weight, SlotMap.parse(slots, place)
    except (RedisConnectionError, ValueError) as error:
        return str(error)
    finally:
        connection.close()
