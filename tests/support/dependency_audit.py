"""Known weaknesses of the pinned dependencies: `python -m tests.support.dependency_audit`, part of `make check`.

Exit code 1 if there are any. A registry without data on weaknesses is reported and is no failure.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

PINS = Path(__file__).parents[2] / "constraints.txt"
LIMIT = 120.0
AUDIT = (
    sys.executable,
    "-m",
    "pip_audit",
    "--requirement",
    str(PINS),
    "--no-deps",
    "--disable-pip",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "--timeout",
    "5",
)


class Weakness(msgspec.Struct):
    """One entry of the registry."""

    id: str
    fix_versions: list[str] = []


class Dependency(msgspec.Struct):
    """One pinned package; a reason instead of a version if the registry does not know it."""

    name: str
    version: str = ""
    vulns: list[Weakness] = []
    skip_reason: str = ""


class Answer(msgspec.Struct):
    """The output of pip-audit."""

    dependencies: list[Dependency]


def verdict(printed: bytes) -> tuple[int, list[str]]:
    """Exit code and lines to print for an output of pip-audit."""
    try:
        dependencies = msgspec.json.decode(printed, type=Answer).dependencies
    except msgspec.DecodeError:
        return 0, ["dependencies not audited: no registry answered"]
    lines = [
        f"{dependency.name} {dependency.version}: {weakness.id}, "
        + (f"repaired in {', '.join(weakness.fix_versions)}" if weakness.fix_versions else "not repaired yet")
        for dependency in dependencies
        for weakness in dependency.vulns
    ]
    unknown = sum(bool(dependency.skip_reason) for dependency in dependencies)
    known = len(dependencies) - unknown
    if not known:
        return 0, ["dependencies not audited: the registry in use has no data on weaknesses"]
    summary = f"{known} dependencies audited, {len(lines)} weaknesses known"
    return int(bool(lines)), [*lines, summary + (f"; {unknown} could not be audited" if unknown else "")]


def main() -> None:
    """Run pip-audit and exit with the verdict."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "timeout": LIMIT}
    try:
        printed = subprocess.run(AUDIT, check=False, **options).stdout
    except subprocess.TimeoutExpired:
        printed = b""
    code, lines = verdict(printed)
    print("\n".join(lines))  # noqa: T201 - a command
    sys.exit(code)


if __name__ == "__main__":
    main()
