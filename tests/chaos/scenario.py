"""A scenario file: what runs, what goes wrong one after the other, and what readers may see of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bookbus.feeders.simulator.proxy import Network

FOLDER = Path(__file__).parent / "scenarios"


class ScenarioError(ValueError):
    """A scenario that cannot be read; the message names the file and what is wrong in it."""


class Way(Network, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network on the way named by `to`: `exchange`, `rest`, `redis` (the feeder's) or `reader` (its way to Redis)."""

    to: str
    reset_mid_frame: bool = False
    """Instead of lasting: half a message, then a reset."""


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to do; exactly one of these is given."""

    exchange: dict[str, Any] | None = None
    """A fault as the simulator's control endpoint takes it; `connection = "first"` is the oldest that is open."""
    redis: str | None = None
    """`kill`, `start`, `pause`, `resume`, or a command for the server."""
    feeder: str | None = None
    """A signal for the first feeder, or `start` for another one in its place."""
    reader: str | None = None
    """A signal for a reader in a process of its own."""
    way: Way | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"an action does one thing, not {given or 'nothing'}")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong. Faults of the exchange and of a way end after `seconds` by themselves."""

    name: str
    begin: list[Action]
    end: list[Action] = []
    seconds: float = 0.0
    hits: int | None = None
    """How many symbols, others each time, the exchange's faults are for; all without it."""
    sees: list[str] = []
    """Statuses other than `live` that a reader may see of the symbols hit, or `disconnected`."""
    notice: float | None = None
    """Within so many seconds of the beginning readers must see one of them."""
    recover: float = 2.0
    """Seconds after the end within which every book is right and live again."""
    never: bool = False
    """The books hit do not come back by themselves: the feeder is started anew."""
    may_miss: bool = False
    """Whether readers may miss updates."""
    ids_fall: bool = False
    """The exchange starts its ids again."""
    at_least: dict[str, int] = {}
    """What must have been counted meanwhile."""
    short: bool = False
    """Whether the short form, which every run of all tests plays, has it."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage and the faults played on it."""

    about: str
    exchange: str = "binance"
    symbols: int = 10
    rate: float = 10.0
    seed: int = 1
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed, for loads that could not be computed as they go."""
    feeders: int = 1
    feeder_arguments: list[str] = []
    persistent: bool = False
    """Whether the server keeps its data when it is killed."""
    pause: float = 0.0
    """Seconds of quiet before each fault: a feeder spaces out requests for a symbol that follow each other closely."""
    reader_process: bool = False
    """Whether a second reader runs in a process of its own."""
    redis_options: list[str] = []
    fault: list[Fault]

    @property
    def ways(self) -> set[str]:
        """Where a proxy is needed."""
        return {action.way.to for fault in self.fault for action in [*fault.begin, *fault.end] if action.way}


def short_form(scenario: Scenario) -> Scenario:
    """What every run of all tests plays of it."""
    return msgspec.structs.replace(scenario, fault=[fault for fault in scenario.fault if fault.short])


_WAYS = ("exchange", "rest", "redis", "reader")


def load(path: Path) -> Scenario:
    """Read a scenario. Raises ScenarioError."""
    try:
        scenario = msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    if unknown := scenario.ways - set(_WAYS):
        raise ScenarioError(f"{path}: no way {', '.join(sorted(unknown))}; known: {', '.join(_WAYS)}")
    return scenario


def names() -> list[str]:
    """Every scenario there is."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(wanted: Sequence[str]) -> list[Path]:
    """The files of these names or paths, all without any. Raises ScenarioError."""
    paths = [path if (path := Path(name)).suffix == ".toml" else FOLDER / f"{name}.toml" for name in wanted or names()]
    for path in paths:
        if not path.exists():
            raise ScenarioError(f"no scenario {path.stem!r}; there are: {', '.join(names())}")
    return paths
