"""One thing that reads bytes from outside, and what it may do with any of them: return, or raise its own error."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """`run` gets the bytes and raises AssertionError where what it made of them cannot be true."""

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()
    """What it may raise."""
    words: tuple[bytes, ...] = ()
    """What random bytes would hardly contain."""

    @cached_property
    def corpus(self) -> tuple[bytes, ...]:
        """What mutations begin with, and what once broke it."""
        return tuple(path.read_bytes() for path in sorted((CORPUS / self.name).iterdir()))

    def accepts(self, data: bytes) -> bool:
        """Whether it made something of the bytes. Raises whatever it must not raise."""
        try:
            self.run(data)
        except self.errors:
            return False
        return True
