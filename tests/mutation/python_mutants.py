"""Every mutant of a Python module: operators, constants, conditions, list elements, assignments and statements."""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.mutation.mutant import Mutant, numbered, other_numbers

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
}
_FUNCTIONS = {"min": "max", "max": "min"}


class Change(NamedTuple):
    """Another value for one field of a node."""

    node: ast.AST
    field: str
    value: Any


def mutants(text: str) -> list[Mutant]:
    """All of them, in the order of the source."""
    return list(numbered(_apply_each(ast.parse(text))))


def _apply_each(tree: ast.Module) -> Iterator[Mutant]:
    for place, statement, removed in _statements(tree, ""):
        before = _shown(statement)
        for change in _changes(statement):
            with _made(change):
                after, text = _shown(statement), ast.unparse(ast.fix_missing_locations(tree))
            yield Mutant(f"{place}: {before}  ->  {after}", text)
        if _removable(statement):
            with _made(removed):
                text = ast.unparse(tree)
            yield Mutant(f"{place}: {before}  ->  pass", text)


@contextmanager
def _made(change: Change) -> Iterator[None]:
    node, field, value = change
    old = getattr(node, field)
    setattr(node, field, value)
    yield
    setattr(node, field, old)


def _statements(node: ast.AST, place: str) -> Iterator[tuple[str, ast.stmt, Change]]:
    """Every statement that does something when the module runs, with what it stands in and its removal."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, [])
        for index, child in enumerate(block):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                yield from _statements(child, f"{place}.{child.name}" if place else child.name)
            elif not _is_silent(child):
                yield place or "module", child, _with_item(node, field, index, ast.Pass())
                yield from _statements(child, place)


def _is_silent(statement: ast.stmt) -> bool:
    """Docstrings, imports, types, and what only saves memory."""
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass)):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    text = ast.unparse(statement)
    return text.startswith(("__slots__", "if TYPE_CHECKING", "Quantities =", "Arrival =", "_Top =", "DepthChange ="))


def _removable(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return isinstance(statement.target, ast.Attribute)
    return isinstance(statement, (ast.Assign, ast.AugAssign, ast.Expr, ast.Return, ast.Delete, ast.Break, ast.Continue))


def _shown(statement: ast.stmt) -> str:
    """The head of a compound statement, the whole of a simple one, on one line."""
    return ast.unparse(statement).split(":\n", 1)[0].replace("\n", " ")


def _changes(statement: ast.stmt) -> Iterator[Change]:
    """What can be changed in this statement, blocks inside it left out."""
    for node in _own_nodes(statement):
        yield from _changes_of(node)
    if isinstance(statement, ast.Assign) and isinstance(targets := statement.targets[0], ast.Tuple):
        # `a, b = 1, 2` without one of its assignments
        for index in range(len(targets.elts)):
            yield _with_item(targets, "elts", index, ast.Name("_", ast.Store()))
    if isinstance(statement, (ast.If, ast.While)):
        for forced in (True, False):
            yield Change(statement, "test", ast.Constant(forced))


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop(0)
        yield node
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns") or (field in ("body", "orelse") and isinstance(value, list)):
                continue
            pending.extend(
                item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST)
            )


def _changes_of(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield _with_item(node, "ops", index, other())
    elif isinstance(node, ast.BoolOp):
        yield Change(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        yield from _without_each(node, "values")
    elif isinstance(node, ast.IfExp):
        for forced in (True, False):
            yield Change(node, "test", ast.Constant(forced))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        # `not x` becomes `not not x`, `-x` becomes `+x`.
        negated = isinstance(node.op, ast.Not)
        yield (
            Change(node, "operand", ast.UnaryOp(ast.Not(), node.operand)) if negated else Change(node, "op", ast.UAdd())
        )
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield Change(node, "op", _ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Constant):
        yield from _changed_constant(node)
    elif isinstance(node, ast.List) and isinstance(node.ctx, ast.Load):
        yield from _without_each(node, "elts")
    elif isinstance(node, ast.comprehension):
        yield from _without_each(node, "ifs")
    elif isinstance(node, ast.Call):
        yield from _without_each(node, "keywords")
    elif isinstance(node, ast.Name) and node.id in _FUNCTIONS:
        yield Change(node, "id", _FUNCTIONS[node.id])


def _changed_constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield Change(node, "value", not value)
    elif isinstance(value, (int, float)):
        for other in other_numbers(value):
            yield Change(node, "value", other)
    elif isinstance(value, str):
        yield Change(node, "value", f"{value}X")


def _with_item(node: ast.AST, field: str, index: int, value: ast.AST) -> Change:
    items = getattr(node, field)
    return Change(node, field, [*items[:index], value, *items[index + 1 :]])


def _without_each(node: ast.AST, field: str) -> Iterator[Change]:
    items = getattr(node, field)
    for index in range(len(items)):
        yield Change(node, field, [*items[:index], *items[index + 1 :]])
