"""Finds a strategy by its name, and gives it its parameters."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

import msgspec

from bookbus.consumers.strategy import Strategy

SHIPPED = {
    "two_sided_quoter": "bookbus.consumers.paper.examples.two_sided_quoter:TwoSidedQuoter",
    "two_leg_arbitrage": "bookbus.consumers.paper.examples.two_leg_arbitrage:TwoLegArbitrage",
}
"""Strategies that need no file of one's own."""

SHARED = "shared"
_SIMPLE = (bool, int, float, str)


class StrategySpec(msgspec.Struct, frozen=True):
    """One strategy of a run: its class as it was named, and its parameters as text.

    With `members`, these share one account, and the strategy is named `shared`.
    """

    strategy: str
    parameters: dict[str, str] = {}
    members: tuple["StrategySpec", ...] = ()


class Assignment(NamedTuple):
    """`name=value,value`, for one class or, with an empty one, for every strategy that has the parameter."""

    strategy: str
    name: str
    values: tuple[str, ...]


def load_strategy(name: str) -> type[Strategy]:
    """The class of `my_bot.py:MyBot`, `package.module:MyBot` or a shipped name. Raises ValueError."""
    where, colon, class_name = SHIPPED.get(name, name).rpartition(":")
    if not colon or not where or not class_name:
        raise ValueError(f"--strategy {name}: write file.py:Class, or one of {', '.join(SHIPPED)}")
    try:
        module = _module_of_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        # Code of the user, which may raise anything; a syntax error tells its line.
        raise ValueError(f"--strategy {name}: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ValueError(f"--strategy {name}: {where} has no class {class_name} that inherits from bookbus.Strategy")
    return found


def make_strategy(kind: type[Strategy], given: dict[str, str]) -> Strategy:
    """An instance with these parameters. Raises ValueError for an unknown name, or a value of another type."""
    known = parameters_of(kind)
    strategy = _new(kind)
    for name, text in given.items():
        if name not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"--set {name}: {kind.__name__} has no such parameter; it has {names}")
        try:
            value = msgspec.convert(text, known[name], strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"--set {name}={text}: {error}") from None
        setattr(strategy, name, value)
    return strategy


def parameters_of(kind: type[Strategy]) -> dict[str, Any]:
    """Name and type of each class attribute with a number, a text or a truth value."""
    hints: dict[str, Any] = {}
    # Where annotations cannot be evaluated, the values tell their types.
    with suppress(NameError, TypeError):
        hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        for name, value in vars(one).items():
            if not name.startswith("_") and isinstance(value, _SIMPLE):
                hint = hints.get(name)
                found[name] = hint if hint in _SIMPLE else type(value)
    return found


def parse_assignment(option: str, text: str) -> Assignment:
    """`name=value` or `Class.name=value,value`. Raises ValueError."""
    named, equals, values = text.partition("=")
    strategy, _, name = named.strip().rpartition(".")
    if not equals or not name:
        raise ValueError(f"{option} {text}: write name=value or Class.name=value")
    return Assignment(strategy, name, tuple(dict.fromkeys(value.strip() for value in values.split(","))))


def specs_of(names: Sequence[str], settings: Iterable[str], grid: str) -> list[StrategySpec]:
    """Every strategy with its parameters, once for each combination of the grid. Raises ValueError."""
    kinds = {name: load_strategy(name) for name in names}
    fixed = [parse_assignment("--set", text)._replace(values=(text.partition("=")[2],)) for text in settings]
    axes = [parse_assignment("--grid", part) for part in grid.split()]
    for option, one in [*(("--set", one) for one in fixed), *(("--grid", one) for one in axes)]:
        if not any(_is_for(one, kind) for kind in kinds.values()):
            known = ", ".join(f"{kind.__name__}.{name}" for kind in kinds.values() for name in parameters_of(kind))
            raise ValueError(f"{option} {one.name}: no strategy of this run has it; there are {known}")
    specs = []
    for name in names:
        kind = kinds[name]
        base = {one.name: one.values[0] for one in fixed if _is_for(one, kind)}
        own = [one for one in axes if _is_for(one, kind)]
        for values in product(*(one.values for one in own)):
            changes = dict(zip((one.name for one in own), values, strict=True))
            spec = StrategySpec(name, base | changes)
            make_strategy(kind, spec.parameters)
            specs.append(spec)
    if len(set(map(msgspec.json.encode, specs))) < len(specs):
        raise ValueError("--strategy: two strategies of this run are the same with the same parameters")
    return specs


def _is_for(assignment: Assignment, kind: type[Strategy]) -> bool:
    return assignment.strategy in ("", kind.__name__) and assignment.name in parameters_of(kind)


def _new(kind: type[Strategy]) -> Strategy:
    try:
        return kind()
    except Exception as error:
        # Code of the user.
        raise ValueError(f"{kind.__name__} cannot be made: {type(error).__name__}: {error}") from error


def _module_of_file(path: Path) -> ModuleType:
    """The module in a file, which may import its neighbours."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    directory = str(path.parent.resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Pickles, dataclasses and annotations look their module up by name.
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem, None)
        if before is not None:
            sys.modules[path.stem] = before
        raise
    return module
