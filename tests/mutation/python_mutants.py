"""Every mutant of a Python module: operators, constants, conditions, list elements, assignments and statements."""

import ast
from collections.abc import Callable, Iterator
from typing import Any

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

Change = Callable[[], Callable[[], None]]
"""Makes a change to the tree; what it returns takes the change back."""


def mutants(text: str) -> list[Mutant]:
    """All of them, in the order of the source."""
    tree = ast.parse(text)
    return list(numbered(_apply_each(tree)))


def _apply_each(tree: ast.Module) -> Iterator[Mutant]:
    for place, statement in _statements(tree, ""):
        before = _shown(statement)
        for change in _changes(statement):
            undo = change()
            after = _shown(statement)
            text = ast.unparse(ast.fix_missing_locations(tree))
            undo()
            yield Mutant(f"{place}: {before}  ->  {after}", text)
        block = _block_of(tree, statement)
        if _removable(statement):
            index = block.index(statement)
            block[index] = ast.Pass()
            yield Mutant(f"{place}: {before}  ->  pass", ast.unparse(tree))
            block[index] = statement


def _statements(node: ast.AST, place: str) -> Iterator[tuple[str, ast.stmt]]:
    """Every statement that does something when the module runs, with the name of what it stands in."""
    for field in ("body", "orelse", "finalbody"):
        for child in getattr(node, field, []):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                yield from _statements(child, f"{place}.{child.name}" if place else child.name)
            elif not _is_silent(child):
                yield place or "module", child
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


def _block_of(tree: ast.AST, statement: ast.stmt) -> list[ast.stmt]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and any(child is statement for child in block):
                return block
    raise LookupError(ast.unparse(statement))


def _shown(statement: ast.stmt) -> str:
    """The head of a compound statement, the whole of a simple one, on one line."""
    return ast.unparse(statement).split(":\n", 1)[0].replace("\n", " ")


def _changes(statement: ast.stmt) -> Iterator[Change]:
    """What can be changed in this statement, blocks inside it left out."""
    for node in _own_nodes(statement):
        yield from _changes_of(node)
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
        yield from _dropped_targets(statement)
    if isinstance(statement, (ast.If, ast.While)):
        for forced in (True, False):
            yield _set(statement, "test", ast.Constant(forced))


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
                yield _set_item(node.ops, index, other())
    elif isinstance(node, ast.BoolOp):
        yield _set(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for index in range(len(node.values)):
            yield _drop_item(node.values, index)
    elif isinstance(node, ast.IfExp):
        for forced in (True, False):
            yield _set(node, "test", ast.Constant(forced))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        # `not x` becomes `not not x`, `-x` becomes `+x`.
        negated = isinstance(node.op, ast.Not)
        yield _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand)) if negated else _set(node, "op", ast.UAdd())
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield _set(node, "op", _ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Constant):
        yield from _changed_constant(node)
    elif isinstance(node, ast.List) and isinstance(node.ctx, ast.Load):
        for index in range(len(node.elts)):
            yield _drop_item(node.elts, index)
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield _drop_item(node.ifs, index)
    elif isinstance(node, ast.Call):
        for index in range(len(node.keywords)):
            yield _drop_item(node.keywords, index)
    elif isinstance(node, ast.Name) and node.id in _FUNCTIONS:
        yield _set(node, "id", _FUNCTIONS[node.id])


def _changed_constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield _set(node, "value", not value)
    elif isinstance(value, (int, float)):
        for other in other_numbers(value):
            yield _set(node, "value", other)
    elif isinstance(value, str):
        yield _set(node, "value", f"{value}X")


def _dropped_targets(statement: ast.Assign) -> Iterator[Change]:
    """`a, b = 1, 2` without one of its assignments."""
    targets = statement.targets[0]
    if isinstance(targets, ast.Tuple):
        for index in range(len(targets.elts)):
            yield _set_item(targets.elts, index, ast.Name("_", ast.Store()))


def _set(node: ast.AST, field: str, value: object) -> Change:
    def change() -> Callable[[], None]:
        old = getattr(node, field)
        setattr(node, field, value)
        return lambda: setattr(node, field, old)

    return change


def _set_item(items: list[Any], index: int, value: object) -> Change:
    def change() -> Callable[[], None]:
        old = items[index]
        items[index] = value

        def undo() -> None:
            items[index] = old

        return undo

    return change


def _drop_item(items: list[Any], index: int) -> Change:
    def change() -> Callable[[], None]:
        old = items.pop(index)
        return lambda: items.insert(index, old)

    return change
