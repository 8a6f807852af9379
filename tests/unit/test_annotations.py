"""Annotations mean the same on every Python: 3.14 looks their names up in the class before it looks outside."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for package in ("schemas", "feeders", "consumers") for path in sorted((ROOT / package).rglob("*.py"))]


def shadowed(source: str) -> set[str]:
    """`Class.name` of each name of a class that is also a name in one of its annotations."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
        assigned = {
            target.id
            for item in node.body
            if isinstance(item, ast.Assign)
            for target in item.targets
            if isinstance(target, ast.Name)
        }
        names = {field.target.id for field in fields if isinstance(field.target, ast.Name)} | assigned
        names |= {method.name for method in methods}
        annotations: list[ast.expr] = [field.annotation for field in fields]
        for method in methods:
            arguments = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
            annotations += [argument.annotation for argument in arguments if argument.annotation is not None]
            annotations += [method.returns] if method.returns is not None else []
        used = {part.id for annotation in annotations for part in ast.walk(annotation) if isinstance(part, ast.Name)}
        found |= {f"{node.name}.{name}" for name in names & used}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_class_hides_a_name_that_its_annotations_use(path: Path) -> None:
    assert shadowed(path.read_text()) == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("class A:\n    list: list[int]", {"A.list"}),
        ("class A:\n    list: int\n    other: 'str'\n    more: dict[str, list[int]]", {"A.list"}),
        ("class A:\n    def type(self) -> type[int]: ...", {"A.type"}),
        ("class A:\n    items: list[int]", set()),
    ],
)
def test_a_hidden_name_is_found(source: str, names: set[str]) -> None:
    assert shadowed(source) == names
