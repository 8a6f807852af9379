"""Imports point one way, and pure modules stay pure; `tests/support/import_rules.py` has the table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.schemas.instruments import EXCHANGES
from tests.support.import_rules import RULES, Import, Product, Rule, imports_of, matches

PRODUCT = Product.read(Path(__file__).parents[2])
MAY_NAME_AN_EXCHANGE = (
    *(f"bookbus.feeders.exchanges.{exchange}_*" for exchange in EXCHANGES),
    # A command line has defaults and examples.
    *("bookbus.feeders.simulator", "bookbus.feeders.commands", "bookbus.feeders.__main__"),
)


def importing(sources: dict[str, str]) -> Product:
    return Product({}, {module: imports_of(source, module) for module, source in sources.items()})


def exchanges_named(source: str) -> Iterator[tuple[int, str]]:
    """Every string with the id of an exchange in it, but for docstrings."""
    ids = re.compile(rf"\b({'|'.join(EXCHANGES)})\b", re.IGNORECASE)
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    yield from ((text.lineno, text.value) for text in texts if isinstance(text.value, str) and ids.search(text.value))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_no_import_breaks_the_rule(rule: Rule) -> None:
    assert [str(one) for one in PRODUCT.violations(rule)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_planted_import_breaks_the_rule(rule: Rule) -> None:
    module, source = rule.planted
    there_already = set(PRODUCT.violations(rule))

    planted = set(PRODUCT.with_module(module, source).violations(rule)) - there_already

    assert (module, module) in {(one.module, one.importer) for one in planted}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.reach], ids=lambda rule: rule.says)
def test_planted_import_in_a_module_on_the_way_breaks_the_rule(rule: Rule) -> None:
    module, source = rule.planted
    on_the_way = PRODUCT.with_module(module, "from bookbus.feeders.errors import FeederError")

    planted = set(on_the_way.with_module("bookbus.feeders.errors", source).violations(rule))

    assert (module, "bookbus.feeders.errors") in {(one.module, one.importer) for one in planted}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_rule_speaks_of_modules_that_exist(rule: Rule) -> None:
    ours = [pattern for pattern in (*rule.who, *rule.allowed, *rule.besides) if pattern.startswith("bookbus")]

    assert [pattern for pattern in ours if not any(matches(module, (pattern,)) for module in PRODUCT.files)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert PRODUCT.circles() == []


def test_planted_circle_is_found() -> None:
    circle = importing(
        {
            "bookbus.feeders.feed": "from bookbus.feeders.books import order_book",
            "bookbus.feeders.books.order_book": "import bookbus.feeders.errors",
            "bookbus.feeders.errors": "def later():\n    from bookbus.feeders.feed import Feed",
            "bookbus.feeders.feeder": "from bookbus.feeders.feed import Feed",
        }
    )

    assert circle.circles() == [["bookbus.feeders.books.order_book", "bookbus.feeders.errors", "bookbus.feeders.feed"]]


def test_import_for_types_alone_makes_no_circle() -> None:
    product = importing(
        {
            "bookbus.feeders.feed": "from bookbus.feeders.errors import FeederError",
            "bookbus.feeders.errors": "if TYPE_CHECKING:\n    from bookbus.feeders.feed import Feed",
        }
    )

    assert product.circles() == []


@pytest.mark.parametrize(
    "module",
    [name for name in PRODUCT.files if matches(name, ("bookbus.feeders",)) and not matches(name, MAY_NAME_AN_EXCHANGE)],
)
def test_shared_code_names_no_exchange(module: str) -> None:
    assert list(exchanges_named(PRODUCT.files[module].read_text())) == []


def test_planted_name_of_an_exchange_is_found() -> None:
    source = '"""As Binance does."""\nif exchange == "binance":\n    log("Bybit is slow")\n'

    assert list(exchanges_named(source)) == [(2, "binance"), (3, "Bybit is slow")]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import bookbus.feeders.sync", "bookbus.feeders.sync"),
        ("def later():\n    from bookbus.feeders import sync", "bookbus.feeders.sync"),
        ("from . import sync", "bookbus.feeders.sync"),
        ("from ..schemas import wire", "bookbus.schemas.wire"),
        ("from ..schemas.wire import encode", "bookbus.schemas.wire.encode"),
        ("if False:\n    import asyncio as quiet", "asyncio"),
    ],
)
def test_import_is_found_wherever_it_stands(source: str, name: str) -> None:
    assert [one.name for one in imports_of(source, "bookbus.feeders.events")] == [name]


def test_package_counts_its_own_relative_imports_from_itself() -> None:
    assert imports_of("from . import feed", "bookbus.feeders", is_package=True) == [Import("bookbus.feeders.feed", 1)]


def test_import_for_types_alone_is_told_apart() -> None:
    source = "if TYPE_CHECKING:\n    import asyncio\nimport time"

    assert set(imports_of(source, "bookbus.feeders.events")) == {
        Import("asyncio", 2, at_run_time=False),
        Import("time", 3),
    }


def test_use_of_a_module_imported_as_a_whole_is_found() -> None:
    source = "import threading as t\nt.Thread(target=print)"

    assert imports_of(source, "bookbus.feeders.events") == [
        Import("threading", 1),
        Import("threading.Thread", 2, used_of="threading"),
    ]


@pytest.mark.parametrize(
    "name", ["asyncio", "asyncio.queues", "urllib.request.urlopen", "bookbus.feeders.commands.run"]
)
def test_pattern_matches_a_name_and_all_that_is_inside_it(name: str) -> None:
    assert matches(name, ("asyncio", "urllib.request", "bookbus.*.commands"))


@pytest.mark.parametrize("name", ["asyncio_more", "urllib", "urllib.parse", "bookbus.feeders.books", "bookbus"])
def test_pattern_matches_nothing_else(name: str) -> None:
    assert not matches(name, ("asyncio", "urllib.request", "bookbus.*.commands"))
