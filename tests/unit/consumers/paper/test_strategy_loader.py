"""Strategies by name, and their parameters."""

from pathlib import Path

import pytest

from bookbus.consumers.paper.examples.two_sided_quoter import TwoSidedQuoter
from bookbus.consumers.paper.strategy_loader import (
    SHIPPED,
    StrategySpec,
    load_strategy,
    make_strategy,
    parameters_of,
    specs_of,
)
from bookbus.consumers.strategy import Strategy

BOT = """
from bookbus import Strategy

class Base(Strategy):
    size: float = 1

class Bot(Base):
    levels = 3
    name: str = "x"
    fast: bool = False
    _hidden = 5

class Other(Base):
    pass

class NoStrategy:
    pass
"""


@pytest.fixture
def bot(tmp_path: Path) -> str:
    path = tmp_path / "my_bot.py"
    path.write_text(BOT)
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_strategy_is_found_and_made(name: str) -> None:
    assert isinstance(make_strategy(load_strategy(name), {}), Strategy)


def test_strategy_is_found_in_a_module() -> None:
    assert load_strategy(SHIPPED["two_sided_quoter"]) is TwoSidedQuoter


def test_parameters_are_class_attributes_of_their_annotated_types(bot: str) -> None:
    kind = load_strategy(f"{bot}:Bot")

    assert parameters_of(kind) == {"timer": float, "size": float, "levels": int, "name": str, "fast": bool}
    made = make_strategy(kind, {"size": "2.5", "levels": "7", "name": "a,b", "fast": "true"})
    assert {name: getattr(made, name) for name in ("size", "levels", "name", "fast", "timer")} == {
        "size": 2.5,
        "levels": 7,
        "name": "a,b",
        "fast": True,
        "timer": 0.0,
    }


def test_strategy_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_bot.py").write_text("SIZE = 4.0")
    (tmp_path / "bot_with_neighbour.py").write_text(
        "from neighbour_of_bot import SIZE\n"
        "from bookbus import Strategy\n"
        "class Bot(Strategy):\n"
        "    size: float = SIZE\n"
    )

    assert make_strategy(load_strategy(f"{tmp_path}/bot_with_neighbour.py:Bot"), {}).size == 4.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "write file.py:Class, or one of two_sided_quoter"),
        ("nowhere.py:Bot", "there is no file nowhere.py"),
        ("no_such_module:Bot", "No module named"),
        ("json:Bot", "json has no class Bot"),
        ("{bot}:NoStrategy", "has no class NoStrategy that inherits"),
        ("{bad}:Bot", "SyntaxError"),
        ("{failing}:Bot", "ZeroDivisionError"),
    ],
)
def test_what_is_no_strategy_is_refused(tmp_path: Path, bot: str, name: str, message: str) -> None:
    (tmp_path / "bad_bot.py").write_text("class Bot(:\n")
    (tmp_path / "failing_bot.py").write_text("1 / 0\n")
    named = name.format(bot=bot, bad=tmp_path / "bad_bot.py", failing=tmp_path / "failing_bot.py")

    with pytest.raises(ValueError, match=message):
        load_strategy(named)


def test_grid_makes_each_combination_of_the_strategies_that_have_the_parameter(bot: str) -> None:
    names = [f"{bot}:Bot", f"{bot}:Other"]

    specs = specs_of(names, ["size=2", "Bot.name=a"], "levels=1,2 Other.size=3,4")

    assert specs == [
        StrategySpec(names[0], {"size": "2", "name": "a", "levels": "1"}),
        StrategySpec(names[0], {"size": "2", "name": "a", "levels": "2"}),
        StrategySpec(names[1], {"size": "3"}),
        StrategySpec(names[1], {"size": "4"}),
    ]


@pytest.mark.parametrize(
    ("settings", "grid", "message"),
    [
        (["size"], "", "write name=value"),
        (["depth=1"], "", "no strategy of this run has it"),
        (["size=much"], "", "--set size=much"),
        ([], "levels=1,1.5", "--set levels=1.5"),
        ([], "depth=1", "--grid depth: no strategy"),
        (["Nobody.size=1"], "", "no strategy"),
    ],
)
def test_wrong_parameters_are_refused(bot: str, settings: list[str], grid: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        specs_of([f"{bot}:Bot"], settings, grid)


def test_same_strategy_twice_is_refused(bot: str) -> None:
    with pytest.raises(ValueError, match="the same with the same parameters"):
        specs_of([f"{bot}:Bot", f"{bot}:Bot"], [], "")
