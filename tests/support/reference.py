"""Writes docs/reference/commands.md from the command lines themselves: `make docs`."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import typer

from bookbus.__main__ import ALIASES, GROUPS, WORDS
from bookbus.__main__ import make_app as make_bookbus_app
from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.feeders.__main__ import make_app as make_feeders_app

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
APPS = {"feeders": feeders_app, "consumers": consumers_app}
_ALL_APPS = {"bookbus": make_bookbus_app([*WORDS, *ALIASES]), **APPS}

_SHARED_BY = 4
"""An option that so many commands have in the same form is described once, at the top."""

_INTRODUCTION = """\
# Commands and settings

Generated from the code by `make docs`; do not edit.

`bookbus WORD` is the one command, in a checkout `python -m bookbus WORD`. `python -m feeders COMMAND`, installed as
`bookbus-feeder`, and `python -m consumers COMMAND` are the same commands by package; `bookbus run` and `bookbus list`
are earlier words for `bookbus paper` and `bookbus readers`. `bookbus --install-completion` lets the shell complete
words and options.

Each command prints its text with `-h` or `--help`. In brackets stand an option's environment variable and its default;
the option wins over the variable. An error is one line on standard error and an exit code other than 0; Ctrl-C gives
130. Logs go to standard error.
"""

_OTHER_VARIABLES = """\
## Variables without an option

- `BOOKBUS_REDIS_PASSWORD`: Password for a `--redis` address that names a user without one.
- `BOOKBUS_REDIS_PASSWORD_FILE`: Path of a file with that password.
- `BOOKBUS_LISTINGS_INTERVAL`: Seconds between two requests of `feeders run` for the exchange's list of markets: 600.
- `XDG_CACHE_HOME`: Parent of the cache directory `bookbus` for lists of markets: `~/.cache`.
"""


class Row(NamedTuple):
    """One argument or option as the page shows it."""

    name: str
    variable: str
    meaning: str
    default: str


@cache
def commands() -> dict[str, Any]:
    """Every command by package and name: `feeders run`."""
    return {
        f"{package} {name}": command
        for package, app in _ALL_APPS.items()
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }


def page() -> str:
    """The whole page."""
    shared = _shared_options()
    parts = [_INTRODUCTION, "## Shared options\n", _listed(sorted(shared)), "## bookbus\n", _words()]
    part = "bookbus"
    for package, name in sections():
        if package != part:
            parts.append(f"## {package}\n")
            part = package
        parts.extend(_section(name, commands()[f"{package} {name}"], shared))
    return "\n".join([*parts, _OTHER_VARIABLES])


def _words() -> str:
    lines = ["| word | command | what it does |", "|---|---|---|"]
    for title, group in GROUPS.items():
        lines += [f"| **{title}** | | |"]
        lines += [f"| `{word}` | `{command}` | {text} |" for word, (command, text) in group.items() if word in WORDS]
    return "\n".join([*lines, ""])


def sections() -> list[tuple[str, str]]:
    """Package and name of each command with a section of its own: words for a package's command have none."""
    own = {word for word, target in WORDS.items() if target.startswith("bookbus.commands.")}
    pairs = [(package, word) for package, word in map(str.split, commands())]
    return [(package, word) for package, word in pairs if package != "bookbus" or word in own]


def rows_of(command: Any) -> Iterator[Row]:
    """The arguments and options of a command, but for `--help`."""
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        names = " ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper()}`"
        yield Row(names, parameter.envvar or "", parameter.help or "", _default(parameter))


def _section(name: str, command: Any, shared: set[Row]) -> Iterator[str]:
    yield f"### {name}\n"
    for text in (command.help, command.epilog):
        yield from _help(text or "")
    rows = list(rows_of(command))
    if own := [row for row in rows if _described(row) not in shared]:
        yield _listed(own)
    if common := [row for row in rows if _described(row) in shared]:
        listed = ", ".join(f"{row.name} ({row.default})" if row.default else row.name for row in common)
        yield f"Shared: {listed}.\n"


def _help(text: str) -> Iterator[str]:
    """Paragraphs as they are; what follows a line of `\\b` is an example."""
    for paragraph in text.replace("\r", "").split("\n\n"):
        if paragraph.lstrip().startswith("\b"):
            lines = [line.removeprefix("  ").rstrip() for line in paragraph.lstrip().removeprefix("\b").splitlines()]
            yield "\n".join(["```", *[line for line in lines if line], "```", ""])
        elif paragraph.strip():
            yield paragraph.strip() + "\n"


def _shared_options() -> set[Row]:
    by_package = [command for name, command in commands().items() if not name.startswith("bookbus ")]
    counted = Counter(_described(row) for command in by_package for row in rows_of(command))
    return {row for row, count in counted.items() if count >= _SHARED_BY}


def _described(row: Row) -> Row:
    return row._replace(default="")


def _listed(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        variable = f"`{row.variable}`" if row.variable else ""
        default = f"default {row.default}" if row.default.startswith("`") else row.default
        known = ", ".join(filter(None, [variable, default]))
        lines.append(f"- {row.name}{f' ({known})' if known else ''}: {row.meaning}")
    return "\n".join([*lines, ""])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == "" or callable(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
