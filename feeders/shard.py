"""Which of an exchange's symbols are one feeder's, when several feeders share them."""

import re
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`. A symbol belongs to the same part on every machine, whatever else is listed."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self}: write 2/5 for the second of five")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, native: str) -> bool:
        """Whether the symbol with the exchange's name `native` is in this part."""
        return crc32(native.encode()) % self.count == self.number - 1


WHOLE = Shard()
"""Every symbol."""


def parse_shard(text: str) -> Shard:
    """The part that `2/5` names. Raises ValueError for anything else."""
    if not (match := re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)):
        raise ValueError(f"shard {text}: write 2/5 for the second of five")
    return Shard(int(match[1]), int(match[2]))
