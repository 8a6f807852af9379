"""The documentation says what is true of the code."""

import ast
import inspect as python_inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import bookbus
from bookbus import consumers
from bookbus.consumers.analysis.acceptance import MINIMUM_FILLS, MINIMUM_SECONDS
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.paper.calibration.table import CalibrationTable, Method, Score, TapeInfo
from bookbus.consumers.paper.fills.model import FillReason
from bookbus.consumers.paper.records import FillEvent
from bookbus.consumers.sources import SOURCES
from bookbus.feeders.bus.heartbeat import counters_of
from bookbus.feeders.bus.outbox import PublisherCounters
from bookbus.feeders.commands.proxy import Network
from bookbus.feeders.feed import FeedCounters
from bookbus.feeders.simulator.core.faults import KINDS
from bookbus.feeders.stall_watch import StallCounters
from bookbus.schemas.capture import CaptureFrame, decode_frame
from bookbus.schemas.heartbeat import AuditReport, FeederHeartbeat, LineReport, SymbolAudit
from bookbus.schemas.instruments import NOT_MATCHING, WARNED_OF
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot, StoredState
from bookbus.schemas.trade import Trade
from bookbus.schemas.wire import encode, inspect
from tests.chaos.scenario import load
from tests.mutation.subjects import SUBJECTS
from tests.support.builders import book
from tests.support.documents import (
    GENERATED,
    PAGES,
    ROOT,
    CommandLine,
    anchors,
    block,
    blocks,
    column,
    command_lines,
    inline_code,
    lines,
    module_lines,
    name_of,
)
from tests.support.reference import commands, page, rows_of, sections

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
COMPOSE = (ROOT / "docker-compose.yml").read_text()

every_page = pytest.mark.parametrize("page_path", PAGES, ids=name_of)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def fields_of(struct: type[msgspec.Struct]) -> list[str]:
    return list(struct.__struct_fields__)


@every_page
def test_links_of_a_page_lead_somewhere(page_path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page_path.read_text())
    targets = [(page_path.parent / target if target else page_path, anchor) for target, anchor in links]

    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [f"{target}#{anchor}" for target, anchor in targets if anchor and anchor not in anchors(target)] == []


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index.read_text())}

    assert {name_of(one) for one in set(PAGES) - listed} == {"README.md", "docs/README.md"}


@every_page
def test_every_make_target_on_a_page_exists(page_path: Path) -> None:
    named = {
        target
        for code in [*lines(page_path), *inline_code(page_path)]
        for target in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", code)
    }

    assert named <= TARGETS


@every_page
def test_every_command_on_a_page_is_accepted_with_its_options(page_path: Path) -> None:
    refused = {line: error for line in command_lines(page_path) if (error := parse_error(line))}

    assert refused == {}


def parse_error(line: CommandLine) -> str:
    """Why the command would refuse these arguments; empty if it would take them."""
    command = commands().get(f"{line.package} {line.name}")
    if command is None:
        return "no such command"
    try:
        command.make_context(line.name, list(line.arguments))
    except Exception as error:
        kind = type(error).__name__
        return "" if line.inline and kind == "MissingParameter" else f"{kind}: {error}"
    return ""


@pytest.mark.parametrize(
    "line",
    [
        CommandLine("feeders", "runs", (), inline=True),
        CommandLine("feeders", "run", ("--symbol", "BTC"), inline=True),
        CommandLine("feeders", "run", ("--lines", "two"), inline=True),
        CommandLine("feeders", "record", ("--symbols", "BTC"), inline=False),
        CommandLine("consumers", "tail", (), inline=False),
    ],
)
def test_wrong_command_is_not_accepted(line: CommandLine) -> None:
    assert parse_error(line)


@every_page
def test_every_module_of_the_tests_that_a_page_runs_exists(page_path: Path) -> None:
    for module, arguments in module_lines(page_path):
        assert find_spec(module), module
        if options := {word.split("=")[0] for word in arguments if word.startswith("--")}:
            help_text = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
            assert options <= set(re.findall(r"--[a-z-]+", help_text))


@every_page
def test_every_subject_of_mutation_on_a_page_exists(page_path: Path) -> None:
    named = re.findall(r"tests\.mutation[^`\n]* --subject (\w+)", page_path.read_text())

    assert set(named) <= set(SUBJECTS)


@pytest.mark.parametrize("page_path", [one for one in PAGES if one.name != "CHANGELOG.md"], ids=name_of)
def test_every_file_on_a_page_exists(page_path: Path) -> None:
    named = {
        path
        for code in [*inline_code(page_path), *lines(page_path)]
        for path in re.findall(r"(?:^|[\s`])((?:bookbus|feeders|consumers|schemas|tests|deploy)/[\w./-]+)", code)
    }

    assert [path for path in named if not (ROOT / path).exists()] == []


@every_page
def test_every_variable_on_a_page_is_read_by_something(page_path: Path) -> None:
    named = set(re.findall(r"\b(?:BOOKBUS|BINANCE|UPBIT)_[A-Z_]+[A-Z]\b", page_path.read_text()))
    sources = [
        path.read_text()
        for folder in ("feeders", "consumers", "schemas", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    code = "\n".join([*sources, COMPOSE, MAKEFILE])

    assert [name for name in named if name not in code and name not in variables_of_commands()] == []


def variables_of_commands() -> set[str]:
    return {row.variable for command in commands().values() for row in rows_of(command)}


@every_page
def test_every_compose_profile_on_a_page_exists(page_path: Path) -> None:
    for line in lines(page_path):
        for profile in re.findall(r"--profile ([a-z-]+)", line):
            assert f"profiles: [{profile}]" in COMPOSE


@every_page
def test_every_python_block_compiles(page_path: Path) -> None:
    for one in blocks(page_path):
        if one.language == "python":
            ast.parse(one.text)


@every_page
def test_every_fault_on_a_page_can_be_asked_for(page_path: Path) -> None:
    requests = [
        (re.sub(r"^.*/control/", "", path), json.loads(body))
        for body, path in re.findall(r"curl -d '([^']+)' ([^\s`]+)", page_path.read_text())
    ]

    assert {path for path, _ in requests} <= {"fault", "network"}
    assert {body["kind"] for path, body in requests if path == "fault"} <= set(KINDS)
    for path, body in requests:
        if path == "network":
            msgspec.convert(body, Network)


def test_commands_page_is_what_the_command_lines_give() -> None:
    assert GENERATED.read_text() == page(), "run `make docs`"


def test_commands_page_has_every_command_option_and_variable() -> None:
    text = GENERATED.read_text()

    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [name for _, name in sections()]
    for command in commands().values():
        for row in rows_of(command):
            assert row.name in text
            assert row.variable in text


def test_every_counter_of_a_feeder_is_documented() -> None:
    counted = counters_of(FeedCounters(), PublisherCounters(), StallCounters()).keys()

    assert set(column("docs/reference/counters.md", "counter")) == {
        *counted,
        *("reconnects", "handovers", "connected", "rest_weight", "unrecognised_statuses", "clock_jumps"),
    }


def test_every_field_of_a_feeders_heartbeat_is_documented() -> None:
    text = text_of("docs/reference/counters.md")
    rows = text.partition("| field | meaning |")[2].partition("\n\n")[0]
    named = [name for row in re.findall(r"^\| (`[^|]*)\|", rows, re.MULTILINE) for name in re.findall(r"\w+", row)]

    assert sorted(named) == sorted(fields_of(FeederHeartbeat))
    (line_fields,) = re.findall(r"each line's `([^`]+)`", text)
    assert line_fields.split() == [name for name in fields_of(LineReport) if name != "line"]
    assert set(column("docs/reference/counters.md", "key")) == {*fields_of(AuditReport), *fields_of(SymbolAudit)}


def test_every_name_and_field_on_redis_is_documented() -> None:
    script = text_of("feeders/bus/publish.lua")
    written = "".join(re.findall(r"redis\.call\('HSET', key, (.*?)\)\n", script, re.DOTALL))

    by_script = set(re.findall(r"'([a-z_]+)', ", written))
    assert set(column("docs/reference/redis.md", "field")) == by_script | {"trading"}
    (adds,) = re.findall(r"XADD(.*?)\)\n", text_of("feeders/bus/trade.lua"), re.DOTALL)
    (trade,) = re.findall(r"A trade has the fields `([^`]+)`", text_of("docs/reference/redis.md"))
    assert trade.split() == list(Trade("binance", "BTC-USDT", "BTCUSDT", 1, 1.0, 1.0, "buy", 1, 1).fields())
    assert re.findall(r"'([a-z_]+)', ", adds) == [*trade.split(), "seq"]


def test_documented_format_has_the_keys_of_the_wire_in_their_order() -> None:
    assert column("docs/reference/wire-format.md", "order", 1) == list(inspect(encode(book())))


def test_documented_capture_format_is_that_of_a_frame() -> None:
    assert column("docs/reference/capture-format.md", "key") == fields_of(CaptureFrame)
    assert decode_frame(block("docs/reference/capture-format.md", "json").encode()).kind == "ws"


def test_every_status_of_a_book_is_documented_those_that_are_stored_first() -> None:
    assert list(BookStatus)[:3] == list(get_args(StoredState))
    assert column("docs/reference/states.md", "status") == list(BookStatus)


def test_every_method_of_a_provider_and_of_a_snapshot_is_documented() -> None:
    text = text_of("docs/reference/provider.md")
    methods = [
        name
        for kind in (MarketDataProvider, OrderBookSnapshot)
        for name, value in vars(kind).items()
        if not name.startswith("_") and (python_inspect.isfunction(value) or isinstance(value, property))
    ]

    assert "depth_within" in methods
    assert [
        name for name in methods if not re.search(rf"`{name}\b", text) and name not in {"symbols", "standard_symbol"}
    ] == []


def test_every_source_and_public_name_is_documented() -> None:
    text = text_of("docs/reference/provider.md")

    assert [name for name in consumers.PUBLIC_NAMES if f"`{name}`" not in text] == []
    assert set(column("docs/reference/provider.md", "source")) == set(SOURCES) - {"real"}
    assert [name for name in consumers.PUBLIC_NAMES if not hasattr(bookbus, name)] == []


def test_every_field_of_a_paper_run_is_documented() -> None:
    page_name = "docs/reference/paper-files.md"
    text = text_of(page_name)

    rows = text.partition("## Fill events")[2].partition("\n\n| ")[2].partition("\n\n")[0]
    named = [name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(fields_of(FillEvent))
    (reasons,) = re.findall(r"^Fill reasons: (.*?)\.\n", text, re.DOTALL | re.MULTILINE)
    assert re.findall(r"`(\w+)`", reasons) == list(FillReason)
    table = text.partition("## Calibration table")[2]
    for struct in (CalibrationTable, Score, TapeInfo, Method):
        assert [name for name in fields_of(struct) if not re.search(rf"\b{name}\b", table)] == []


def test_every_reason_to_skip_a_decision_is_documented() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "consumers" / "paper").glob("*.py"))
    documented = column("docs/reference/paper-files.md", "reason")

    assert set(re.findall(r"(?:Skip|Refusal)\(\"(\w+)\"", sources)) <= set(documented)
    derived = {*BookStatus, *(f"market_{status}" for status in NOT_MATCHING | WARNED_OF)}
    assert derived <= {*documented, "live"}
    assert [name for name in documented if f'"{name}"' not in sources and name not in derived] == []


def test_verdict_is_documented_with_its_limits() -> None:
    text = text_of("docs/how-to/analyze.md")

    assert f"at least {MINIMUM_SECONDS:g} s" in text
    assert f"at least {MINIMUM_FILLS} orders" in text


def test_scenario_on_a_page_is_one(tmp_path: Path) -> None:
    text = block("docs/how-to/break-things.md", "toml")
    path = tmp_path / "my-own.toml"
    path.write_text(text)

    assert load(path).about == tomllib.loads(text)["about"]
