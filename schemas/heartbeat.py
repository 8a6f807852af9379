"""One feeder's sign of life: the fields of its hash and the message on the heartbeat channel."""

from typing import Literal

import msgspec

FeedState = Literal["syncing", "live", "suspect", "closed"]

HEARTBEAT_INTERVAL = 1.0
HEARTBEAT_TTL = 5


class HeartbeatError(ValueError):
    """These bytes are not a feeder's heartbeat."""


class FeederHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Who feeds what. `states` has the standard symbol of every book served; times are the feeder's own clock."""

    feeder: str
    exchange: str
    endpoint: str
    states: dict[str, FeedState]
    host: str
    pid: int
    started_us: int
    time_us: int
    counters: dict[str, float] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FeederHeartbeat).decode


def encode_heartbeat(beat: FeederHeartbeat) -> bytes:
    """The message on the channel: one JSON object."""
    return _encode(beat)


def decode_heartbeat(data: bytes) -> FeederHeartbeat:
    """The heartbeat in a message. Raises HeartbeatError for anything else."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HeartbeatError(f"not a heartbeat: {error}") from error


def heartbeat_fields(beat: FeederHeartbeat) -> dict[str, str]:
    """The same as fields of the hash, readable as text; maps are JSON."""
    fields = msgspec.structs.asdict(beat)
    return {name: value if isinstance(value, str) else _encode(value).decode() for name, value in fields.items()}
