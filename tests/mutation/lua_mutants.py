"""Every mutant of the publish script: operators, constants, conditions, stored fields and lines."""

import re
from collections.abc import Iterator

from tests.mutation.mutant import Mutant, numbered, other_numbers

_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|\.\.|[<>=~]=|[-+*/%<>]|\b\d+\b|\b\w+\b")
_OTHER = {
    "==": ("~=",),
    "~=": ("==",),
    "<": ("<=", ">="),
    ">": (">=", "<"),
    "and": ("or",),
    "or": ("and",),
    "not": ("",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "%": ("/",),
}
_CONDITION = re.compile(r"\b(if|elseif) (.*) then$")
_FIELD = re.compile(r", '\w+', [\w.]+(?:\[\d+\])?(?=[,)])")
_LINE = re.compile(r"\s*(redis\.call\(.*\)|return \d|[a-z]\w* = .*)$")


def mutants(text: str) -> list[Mutant]:
    """All of them, in the order of the source; some may not be valid Lua."""
    return list(numbered(_apply_each(text.splitlines())))


def _apply_each(lines: list[str]) -> Iterator[Mutant]:
    for number, line in enumerate(lines):
        code, dash, comment = line.partition("--")
        for changed in _changes(code.rstrip()):
            text = "\n".join([*lines[:number], changed + " " + dash + comment, *lines[number + 1 :]])
            yield Mutant(f"{code.strip()}  ->  {changed.strip() or 'nothing'}", text + "\n")


def _changes(code: str) -> Iterator[str]:
    for match in _TOKEN.finditer(code):
        for other in _others(match.group()):
            yield code[: match.start()] + other + code[match.end() :]
    if condition := _CONDITION.search(code):
        for forced in ("true", "false"):
            yield code[: condition.start(2)] + forced + code[condition.end(2) :]
        yield from _without_parts(code, condition)
    for match in _FIELD.finditer(code):
        yield code[: match.start()] + code[match.end() :]
    if _LINE.match(code):
        yield ""


def _others(token: str) -> tuple[str, ...]:
    if token.isdigit():
        return tuple(map(str, other_numbers(int(token))))
    if token.startswith("'"):
        return (f"{token[:-1]}X'",)
    return _OTHER.get(token, ())


def _without_parts(code: str, condition: re.Match[str]) -> Iterator[str]:
    """One operand of `and` or `or` left out at a time."""
    for match in re.finditer(r"(not )?(\([^()]*\)|[\w.\[\] ]+ [=~<>]=? [\w'.]+|\w+) (and|or) ", condition.group(2)):
        start = condition.start(2)
        yield code[: start + match.start()] + code[start + match.end() :]
