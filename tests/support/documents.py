"""The pages of the documentation: their code, headings and links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "reference" / "commands.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_PROGRAM = re.compile(
    r"(?:^|[\s/(])(?:python -m (?P<package>feeders|consumers|bookbus)|(?P<script>bookbus(?:-feeder)?)) "
    r"(?=(?P<rest>(?!import\b)[a-z].*))"
)
_SCRIPTS = {"bookbus-feeder": "feeders", "bookbus": "bookbus"}


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


class CommandLine(NamedTuple):
    """A command of ours with its arguments. An inline one may leave out what the command requires."""

    package: str
    name: str
    arguments: tuple[str, ...]
    inline: bool


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Every fenced block of the page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


def block(page: str, language: str) -> str:
    """The one block of this language on the page."""
    (text,) = [one.text for one in blocks(ROOT / page) if one.language == language]
    return text


def inline_code(page: Path) -> list[str]:
    """Every piece of inline code, on one line."""
    return [" ".join(code.split()) for code in _INLINE.findall(_BLOCK.sub("", page.read_text()))]


def lines(page: Path) -> list[str]:
    """Every line of every block for a shell or a service manager, continued lines joined."""
    shown = [one.text for one in blocks(page) if one.language in ("", "ini")]
    return [line for text in shown for line in text.replace("\\\n", " ").splitlines()]


def command_lines(page: Path) -> Iterator[CommandLine]:
    """Every command of ours on the page."""
    for inline, codes in ((False, lines(page)), (True, inline_code(page))):
        for code in codes:
            for found in _PROGRAM.finditer(code):
                package = found["package"] or _SCRIPTS[found["script"]]
                name, *arguments = _words(found["rest"])
                yield CommandLine(package, name, tuple(arguments), inline)


def module_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every module of the tests that is run on the page, with its arguments."""
    for code in [*lines(page), *inline_code(page)]:
        if found := re.search(r"python -m (tests\.[\w.]+)(.*)", code):
            yield found[1], _words(found[2])


def anchors(page: Path) -> set[str]:
    """What a link may name after the `#`: the headings as GitHub spells them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE):
        spelled = anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{spelled}-{number}"
        found.add(anchor)
    return found


def column(page: str, head: str, index: int = 0) -> list[str]:
    """The code in one column of the table whose first row begins with `head`."""
    _, _, rest = (ROOT / page).read_text().partition(f"\n| {head} ")
    if not rest:
        raise ValueError(f"{page} has no table that begins with {head}")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [code for row in rows for code in _INLINE.findall(row.split("|")[1 + index])]


class Step(NamedTuple):
    """One step of a walk through the code: a file, and the functions that are called in it, in their order."""

    file: str
    functions: tuple[str, ...]


def walks() -> tuple[list[Step], list[Step]]:
    """The walks of the architecture page: of a frame, and of an order."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    parts = text.partition("## Two walks")[2].split("\n1. ")
    frame, order = (re.findall(r"^\d+\. `([^`]+)`(?:: (.*))?$", f"1. {part}", re.MULTILINE) for part in parts[1:])
    return _steps(frame), _steps(order)


def _steps(rows: list[tuple[str, str]]) -> list[Step]:
    return [Step(file, tuple(re.findall(r"`([\w.]+)`", names.partition(";")[0]))) for file, names in rows]


def _words(text: str) -> list[str]:
    """The words of a command up to what is no part of it: a pipe, a comment, another command, a remark."""
    lexer = shlex.shlex(re.split(r"\s{2,}", text.strip())[0], posix=True, punctuation_chars="|;&()<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&()<>"):
            break
        words.append(word)
    return words
