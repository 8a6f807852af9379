"""Figures of the product's structure, of this checkout or another: python -m tests.support.structure --root DIR

The product is every .py and .lua file of bookbus/, schemas/, feeders/ and consumers/.
"""

import argparse
import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.support.import_rules import RULES, Product, source_files

ROOT = Path(__file__).parents[2]
RUN_LENGTH = 6


class Run(NamedTuple):
    """The same `length` lines at several places, each a file and the number of its first line."""

    length: int
    places: tuple[tuple[str, int], ...]


def import_lines(source: str) -> set[int]:
    """The numbers of the lines that an import statement covers."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {number for node in imports for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def repeated_runs(sources: dict[str, str]) -> list[Run]:
    """Every run of six or more lines that stands elsewhere again, longest first.

    Lines are compared without their indentation; blank lines and imports are left out.
    """
    lines = {}
    for name, source in sources.items():
        skipped = import_lines(source) if name.endswith(".py") else set()
        numbered = enumerate(source.splitlines(), 1)
        lines[name] = [(number, text.strip()) for number, text in numbered if text.strip() and number not in skipped]
    places: defaultdict[tuple[str, ...], set[tuple[str, int]]] = defaultdict(set)
    for name, kept in lines.items():
        for start in range(len(kept) - RUN_LENGTH + 1):
            places[tuple(text for _, text in kept[start : start + RUN_LENGTH])].add((name, start))
    repeated = {frozenset(found) for found in places.values() if len(found) > 1}

    def moved(found: frozenset[tuple[str, int]], by: int) -> frozenset[tuple[str, int]]:
        return frozenset((name, start + by) for name, start in found)

    runs = []
    for found in repeated:
        if moved(found, -1) not in repeated:  # otherwise the run begins earlier
            length = RUN_LENGTH
            while moved(found, length - RUN_LENGTH + 1) in repeated:
                length += 1
            runs.append(Run(length, tuple(sorted((name, lines[name][start][0]) for name, start in found))))
    return sorted(runs, key=lambda run: (-run.length, run.places))


def figures(root: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The figures of a checkout, and what stands behind some of them."""
    product = Product.read(root)
    sources = {str(path.relative_to(root)): path.read_text() for path in source_files(root)}
    python = {name: source for name, source in sources.items() if name.endswith(".py")}
    importers = Counter(other for module in product.files for other in product.imported_by(module))
    broken = {
        f"{one.importer}:{one.found.line} imports {one.found.name}: {rule.says}"
        for rule in RULES
        for one in product.violations(rule)
    }
    details = {
        "modules with exactly one importer": sorted(module for module, count in importers.items() if count == 1),
        "import circles": [" ".join(circle) for circle in product.circles()],
        "imports that break a rule": sorted(broken),
        "repeated runs of six or more lines": [
            f"{run.length} lines: {', '.join(f'{name}:{line}' for name, line in run.places)}"
            for run in repeated_runs(sources)
        ],
    }
    return {
        "modules": len(python),
        "median lines of a module": median(source.count("\n") for source in python.values()),
        "lines of product": sum(source.count("\n") for source in sources.values()),
        "import lines": sum(len(import_lines(source)) for source in python.values()),
        **{name: len(found) for name, found in details.items()},
    }, details


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="Another checkout than this one.")
    parser.add_argument("--details", action="store_true", help="Print the modules and lines behind the figures.")
    arguments = parser.parse_args()
    counted, details = figures(arguments.root.resolve())
    lines = []
    for name, figure in counted.items():
        lines.append(f"{figure:>8,g}  {name}")
        lines += [f"{'':10}{line}" for line in details.get(name, []) if arguments.details]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
