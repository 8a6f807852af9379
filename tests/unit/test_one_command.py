"""`bookbus WORD`: one command over the commands of both packages, which imports only what a word needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import bookbus
from bookbus.__main__ import ALIASES, GROUPS, QUICK, WORDS, help_text, in_new_words, make_app, target_of
from bookbus.consumers.__main__ import COMMANDS as CONSUMERS
from bookbus.feeders.__main__ import COMMANDS as FEEDERS
from bookbus.feeders.commands.health_check import VARIABLES, HealthQuestion, parse
from tests.support.reference import commands, rows_of

ROOT = Path(__file__).parents[2]
HEAVY = ("typer", "click", "rich", "redis", "aiohttp", "websockets", "numpy", "matplotlib")

RUN = """
import atexit, json, sys
sys.argv = {argv}
atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules))))
from bookbus.__main__ import main
main()
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bookbus", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def imported_by(*arguments: str) -> set[str]:
    """The packages and modules that are loaded when `bookbus` with these arguments ends."""
    program = RUN.format(argv=["bookbus", *arguments])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("option", [(), ("-h",), ("--help",)])
def test_help_lists_every_word_by_group(option: tuple[str, ...]) -> None:
    shown = run(*option)

    assert (shown.returncode, shown.stderr) == (0, "")
    listed = re.findall(r"^  ([a-z][a-z-]*) {2,}\S", shown.stdout, re.MULTILINE)
    assert listed == list(WORDS)
    assert [title for title in GROUPS if f"\n{title}:\n" in shown.stdout] == list(GROUPS)


def test_version_is_printed() -> None:
    assert run("--version").stdout == f"{bookbus.__version__}\n"


def test_every_command_of_both_packages_has_a_word() -> None:
    assert {*FEEDERS.values(), *CONSUMERS.values()} <= {*WORDS.values(), *ALIASES.values()}
    assert {*FEEDERS, *CONSUMERS} <= {*WORDS, *ALIASES}


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("feed", FEEDERS["run"]),
        ("paper", CONSUMERS["run"]),
        ("run", CONSUMERS["run"]),
        ("readers", CONSUMERS["list"]),
        ("list", CONSUMERS["list"]),
        ("books", CONSUMERS["books"]),
        ("record", FEEDERS["record"]),
    ],
)
def test_word_says_what_it_runs_and_earlier_words_go_on(word: str, target: str) -> None:
    assert target_of(word) == target


@pytest.mark.parametrize("word", sorted({*WORDS, *ALIASES}))
def test_each_word_has_help_and_its_examples_use_the_new_words(word: str) -> None:
    shown = CliRunner().invoke(make_app([word, "help" if word == "health" else "health"][:1]), [word, "-h"])

    assert shown.exit_code == 0
    assert not re.search(r"python -m (feeders|consumers) (run|list)\b", shown.output)


def test_earlier_words_in_a_help_become_new_ones() -> None:
    text = "python -m feeders run --lines 2\n  python -m consumers run\n  watch python -m consumers list"

    assert in_new_words(text) == "bookbus feed --lines 2\n  bookbus paper\n  watch bookbus readers"


def test_unknown_word_names_near_ones() -> None:
    refused = run("shwo")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: bookbus has no command 'shwo': did you mean show")


def test_summary_of_a_word_is_short() -> None:
    assert [line for line in help_text().splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("nothing",)])
def test_help_imports_no_library(arguments: tuple[str, ...]) -> None:
    loaded = imported_by(*arguments)

    assert loaded & {*HEAVY, "msgspec", "hiredis", "asyncio"} == set()
    assert "bookbus.__main__" in loaded


@pytest.mark.parametrize("arguments", [(), ("--strict",), ("--exchange", "binance"), ("--host=a", "--prefix=p")])
def test_health_imports_neither_typer_nor_redis_py(arguments: tuple[str, ...]) -> None:
    loaded = imported_by("health", "--redis", "redis://127.0.0.1:1/0", *arguments)

    assert loaded & set(HEAVY) == set()
    assert "bookbus.feeders.commands.health_check" in loaded


def test_import_of_a_library_would_be_noticed() -> None:
    assert {"typer", "redis"} <= imported_by("show", "--help")


@pytest.mark.parametrize(("word", "other"), [("feed", "consumers"), ("books", "feeders")])
def test_word_of_one_package_imports_no_command_of_the_other(word: str, other: str) -> None:
    assert [name for name in imported_by(word, "--help") if name.startswith(f"bookbus.{other}.commands")] == []


def test_quick_check_of_health_knows_every_option_of_the_command() -> None:
    rows = {row.name.strip("`"): row for row in rows_of(commands()["feeders health"])}

    assert set(QUICK) == {"health"}
    assert {f"--{name.replace('_', '-')}": variable for name, variable in VARIABLES.items()} == {
        name: row.variable for name, row in rows.items() if name != "--strict"
    }
    for name, row in rows.items():
        default = HealthQuestion._field_defaults[name.removeprefix("--").replace("-", "_")]
        assert row.default == (f"`{default}`" if default else "")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], HealthQuestion(prefix="at-env")),
        (["--prefix", "p", "--strict"], HealthQuestion(prefix="p", strict=True)),
        (
            ["--feeder-name=a,b", "--exchange", "upbit"],
            HealthQuestion(prefix="at-env", feeder_name="a,b", exchange="upbit"),
        ),
        (["--redis=redis://h/0?x=1"], HealthQuestion(prefix="at-env", redis="redis://h/0?x=1")),
        (["--help"], None),
        (["--prefix"], None),
        (["--strict=yes"], None),
        (["extra"], None),
        (["-h"], None),
    ],
)
def test_quick_check_takes_plain_options_alone(arguments: list[str], asked: HealthQuestion | None) -> None:
    assert parse(arguments, {"BOOKBUS_PREFIX": "at-env", "BOOKBUS_HEALTH_HOST": ""}) == asked


def test_shell_completes_words_and_options() -> None:
    words = run(_BOOKBUS_COMPLETE="complete_bash", COMP_WORDS="bookbus re", COMP_CWORD="1")
    options = run(_BOOKBUS_COMPLETE="complete_bash", COMP_WORDS="bookbus feed --ex", COMP_CWORD="2")

    assert words.stdout.split() == [word for word in WORDS if word.startswith("re")]
    assert options.stdout.split() == ["--exchange"]


@pytest.mark.parametrize("written", ["BINANCE", " Binance", "binance"])
@pytest.mark.parametrize("word", ["show", "tail", "feed", "record", "paper", "smoke", "simulate"])
def test_exchange_may_be_written_in_any_case(word: str, written: str) -> None:
    command = typer.main.get_command(make_app([word])).commands[word]  # type: ignore[attr-defined]
    (parameter,) = [one for one in command.params if one.name == "exchange"]

    assert parameter.process_value(typer.Context(command), written) == "binance"
