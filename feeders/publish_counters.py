"""What a publisher did, in numbers."""

from dataclasses import dataclass


@dataclass(slots=True)
class PublisherCounters:
    """What happened since the start."""

    accepted: int = 0
    confirmed: int = 0
    duplicates: int = 0
    conflated: int = 0
    errors: int = 0
    trades: int = 0
    trade_duplicates: int = 0
    trades_dropped: int = 0
    batches: int = 0
    written_bytes: int = 0
