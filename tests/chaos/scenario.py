"""A scenario file: the processes, a sequence of faults, and what readers may see of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bookbus.feeders.commands.proxy import Network

FOLDER = Path(__file__).parent / "scenarios"


class ScenarioError(ValueError):
    """A scenario is invalid; the message names the file and the error."""


class Way(Network, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Network conditions of the connection `to`: `exchange`, `rest`, `redis` (of the feeder) or `reader`."""

    to: str
    reset_mid_frame: bool = False
    """Not a condition: half a message, then a reset."""


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One action; exactly one field is given."""

    exchange: dict[str, Any] | None = None
    """A fault for the simulator's control endpoint; `connection = "first"` is the oldest open one."""
    redis: str | None = None
    """`kill`, `start`, `pause`, `resume`, or a command for the server."""
    feeder: str | None = None
    """A signal for the first feeder, or `start` to replace it."""
    reader: str | None = None
    """A signal for the reader in its own process."""
    way: Way | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"an action does one thing, not {given or 'nothing'}")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault. Those of the exchange and of the network end after `seconds`."""

    name: str
    begin: list[Action]
    end: list[Action] = []
    seconds: float = 0.0
    hits: int | None = None
    """Number of symbols that the exchange's faults affect, others each time; by default all."""
    sees: list[str] = []
    """Statuses other than `live` that a reader may see of the affected symbols, trading statuses other than `trading`,
    or `disconnected`."""
    notice: float | None = None
    """Limit in seconds, from the beginning, for readers to see one of them."""
    recover: float = 2.0
    """Limit in seconds, from the end, for every book to be right and live again."""
    never: bool = False
    """The affected books do not recover: the feeder is restarted."""
    may_miss: bool = False
    """Whether readers may miss updates."""
    ids_fall: bool = False
    """The exchange restarts its ids."""
    at_least: dict[str, int] = {}
    """Lower limits of counts during the fault."""
    short: bool = False
    """Whether the fault is part of the short form, which the test suite runs."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set of processes and the faults injected into it."""

    about: str
    exchange: str = "binance"
    symbols: int = 10
    rate: float = 10.0
    seed: int = 1
    prepared: float = 0.0
    """Seconds of market that are computed beforehand and replayed, for loads that cannot be computed live."""
    feeders: int = 1
    feeder_arguments: list[str] = []
    others_arguments: list[str] = []
    """Further arguments of all feeders but the first."""
    persistent: bool = False
    """Whether the server keeps its data when it is killed."""
    pause: float = 0.0
    """Seconds before each fault: a feeder delays repeated snapshot requests of one symbol."""
    reader_process: bool = False
    """Whether a second reader runs in its own process."""
    redis_options: list[str] = []
    fault: list[Fault]

    @property
    def ways(self) -> set[str]:
        """The connections that need a proxy."""
        return {action.way.to for fault in self.fault for action in [*fault.begin, *fault.end] if action.way}


def short_form(scenario: Scenario) -> Scenario:
    """The part that the test suite runs."""
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
    """Names of all scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(wanted: Sequence[str]) -> list[Path]:
    """The files of these names or paths, by default all. Raises ScenarioError."""
    paths = [path if (path := Path(name)).suffix == ".toml" else FOLDER / f"{name}.toml" for name in wanted or names()]
    for path in paths:
        if not path.exists():
            raise ScenarioError(f"no scenario {path.stem!r}; there are: {', '.join(names())}")
    return paths
