"""Correct exchange order books on Redis: `from bookbus import RedisMarketDataProvider`.

The public names of `bookbus.consumers` can be imported from here; they are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bookbus.consumers import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    consumers = import_module("bookbus.consumers")
    if name in consumers.PUBLIC_NAMES:
        return getattr(consumers, name)
    raise AttributeError(f"module 'bookbus' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *import_module("bookbus.consumers").PUBLIC_NAMES])
