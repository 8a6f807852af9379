"""The field's words: names that were replaced do not come back, and no name has two meanings.

A name is compared by its parts, whatever its case: `LineRace`, `line_race` and `test_a_line_race_ends` all hold
`line_race`.
"""

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.import_rules import Product

ROOT = Path(__file__).parents[2]
PRODUCT = Product.read(ROOT)

# No engineer uses these for anything else: they are not in code, not in tests, not in prose. A part may end in s.
RETIRED_EVERYWHERE = {
    "desk": "SymbolTrader",
    "run_context": "PaperBroker",
    "order_flow": "PaperBroker",
    "line_race": "LineArbiter",
    "brought_alone": "seen_only_by",
    "wiring": "arguments",
    "homeless": "unrouted",
    "housed": "routed",
    "obstacle": "reject_reason",
    "why_not": "reject_reason",
    "misfit": "mismatch",
    "mids": "mid_prices",
    "expect_answer": "snapshot_requested",
    "receive_answer": "apply_snapshot",
    "distrust": "invalidate",
    "distrusted": "invalidated",
    "book_record": "BookHistory",
    "run_record": "RunCounters",
    "frame_in_hand": "PendingFrame",
    "strike": "match",
    "struck": "matched",
    "spoil": "corrupt",
    "spoiled": "corrupted",
    "dice": "rng",
    "wish": "TypeRequest",
    "wishes": "TypeRequest",
    "drawn_order": "SampledOrder",
    "tape_merger": "EventMerger",
    "greeted": "authenticated",
    "standstill": "stall",
    "stood_still": "stalled",
    "stands_still": "stalls",
    "keeper": "ReconnectingConnection",
    "open_line": "line_up",
    "lose_line": "line_down",
    "take_out": "evict",
    "taken_out": "evicted",
    "put_back": "requeue",
    "unfit": "wrong_role",
    "made_up": "synthetic",
    "asked_runs": "commands/run.py",
    "told_provider": "stub_provider",
    "witness": "observer",
    "guarded_server": "protected_server",
}

# Ordinary words, which prose may use, but no name that the product defines.
RETIRED_AS_NAMES = {
    "well": "healthy",
    "told": "reported",
    "tell": "report",
    "settle": "update_idle, apply_replies, set_result",
    "settled": "idle",
    "trouble": "error",
}

# Words so ordinary that variables may have them, too, but no class and no function.
RETIRED_CLASSES_AND_FUNCTIONS = {
    "Unanswered": "NoSnapshots",
    "foreign": "not_redis",
    "unreachable": "connect_failed",
    "Place": "HostPort",
    "Pace": "ReplayClock",
    "Record": "ReaderRecord",
    "Profit": "Pnl",
    "profit_curve": "pnl_curve",
    "elapsed": "boottime",
    "refused": "rejected",
    "note": "record",
}

# Keys of files that others read.
EXEMPT_EVERYWHERE = {"calibration_misfits": "key of a KPI file"}

# What others read: fields of a public value, keys of files and of Redis.
EXEMPT = {
    ("bookbus.consumers.bus.trades", "trouble"): "public field, an alias of `error`",
    ("bookbus.consumers.reading", "trouble"): "public field, an alias of `error`",
    ("bookbus.consumers.paper.kpi", "trouble"): "key of a KPI file",
}


def parts_of(name: str) -> str:
    """A name in snake case with `_` on both sides."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return f"_{spaced.lower().strip('_')}_"


def retired_in(name: str, retired: Iterable[str]) -> list[str]:
    parts = parts_of(name)
    return [word for word in retired if f"_{word}_" in parts or f"_{word}s_" in parts]


def retired_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Every word of a text that holds a retired name, with its line and that name."""
    for number, line in enumerate(text.splitlines(), 1):
        for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", line):
            if word not in EXEMPT_EVERYWHERE:
                yield from ((number, word, found) for found in retired_in(word, RETIRED_EVERYWHERE))


class Definition(NamedTuple):
    line: int
    name: str
    of_class_or_function: bool = False


def definitions(source: str) -> Iterator[Definition]:
    """Every class, function, argument, attribute and variable that a source defines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield Definition(node.lineno, node.name, of_class_or_function=True)
            case ast.arg():
                yield Definition(node.lineno, node.arg)
            case ast.Name(ctx=ast.Store()):
                yield Definition(node.lineno, node.id)
            case ast.Attribute(ctx=ast.Store()):
                yield Definition(node.lineno, node.attr)


def retired_definitions(source: str, module: str) -> Iterator[tuple[int, str, str]]:
    """Every name that a source defines although it is retired, with its line and what to call it."""
    for line, name, of_class_or_function in definitions(source):
        if (module, name) not in EXEMPT:
            instead = [RETIRED_AS_NAMES[word] for word in retired_in(name, RETIRED_AS_NAMES)]
            if of_class_or_function and name in RETIRED_CLASSES_AND_FUNCTIONS:
                instead.append(RETIRED_CLASSES_AND_FUNCTIONS[name])
            yield from ((line, name, word) for word in instead)


def classes_of_one_name(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Each public class name that several modules define, with those modules."""
    modules = defaultdict(list)
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module)
    return {name: found for name, found in modules.items() if len(found) > 1}


def texts() -> list[Path]:
    """Every tracked file that people write, but this one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    corpus = ROOT / "tests" / "fuzz" / "corpus"
    return [path for path in paths if path.is_file() and path != Path(__file__) and corpus not in path.parents]


def test_no_retired_word_is_left_in_code_tests_or_documentation() -> None:
    left = [
        f"{path.relative_to(ROOT)}:{line}: {word} ({found}: write {RETIRED_EVERYWHERE[found]})"
        for path in texts()
        for line, word, found in retired_words(path.read_text(errors="replace"))
    ]

    assert left == []


def test_no_file_has_a_retired_name() -> None:
    names = [path.relative_to(ROOT) for path in texts()]

    assert [str(name) for name in names for part in name.parts if retired_in(part, RETIRED_EVERYWHERE)] == []


def test_no_retired_name_is_defined() -> None:
    left = [
        f"{module}:{line}: {name} (write {instead})"
        for module, path in PRODUCT.files.items()
        for line, name, instead in retired_definitions(path.read_text(), module)
    ]

    assert left == []


def test_no_two_public_classes_of_the_product_have_one_name() -> None:
    assert classes_of_one_name({module: path.read_text() for module, path in PRODUCT.files.items()}) == {}


@pytest.mark.parametrize(("module", "name"), EXEMPT)
def test_exempt_name_is_defined(module: str, name: str) -> None:
    assert name in {found.name for found in definitions(PRODUCT.files[module].read_text())}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("class LineRace:", "line_race"),
        ("self._homeless_trades", "homeless"),
        ("def test_what_is_put_back_comes_first()", "put_back"),
        ("the keepers reconnect", "keeper"),
        ("STOOD_STILL = 3", "stood_still"),
        ("HTTPDesk", "desk"),
    ],
)
def test_planted_word_is_found(planted: str, found: str) -> None:
    assert [name for _, _, name in retired_words(f"first line\n{planted}\n")] == [found]


@pytest.mark.parametrize(
    "text", ["calibration_misfits: []", "put it back", "a bookkeeper", "the dicey deskside", "amids", "open_lineage"]
)
def test_word_that_only_looks_similar_is_left_alone(text: str) -> None:
    assert list(retired_words(text)) == []


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        ("def _settle_later(): ...", "_settle_later"),
        ("class ToldBooks: ...", "ToldBooks"),
        ("def f(*, well: bool): ...", "well"),
        ("self.trouble = ''", "trouble"),
        ("told: list[int] = []", "told"),
        ("class Place: ...", "Place"),
        ("async def note(self): ...", "note"),
    ],
)
def test_planted_definition_is_found(planted: str, name: str) -> None:
    assert [found for _, found, _ in retired_definitions(planted, "bookbus.feeders.feed")] == [name]


@pytest.mark.parametrize(
    "source", ["log('told well')", "class Placement: ...", "x = y.trouble", "def page(*, note=''): ...", "refused = 0"]
)
def test_use_of_an_ordinary_word_is_left_alone(source: str) -> None:
    assert list(retired_definitions(source, "bookbus.feeders.feed")) == []


def test_exempt_name_is_left_alone_in_its_module_only() -> None:
    source = "class Reading:\n    trouble: str = ''"

    assert list(retired_definitions(source, "bookbus.consumers.reading")) == []
    assert list(retired_definitions(source, "bookbus.feeders.feed")) == [(2, "trouble", "error")]


def test_planted_second_class_of_one_name_is_found() -> None:
    sources = {"a": "class Feed: ...", "b": "class Feed: ...\nclass _Day: ...", "c": "class _Day: ..."}

    assert classes_of_one_name(sources) == {"Feed": ["a", "b"]}
