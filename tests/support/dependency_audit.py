"""Known weaknesses of the pinned dependencies: `python -m tests.support.dependency_audit`, part of `make check`.

Exit code 1 if there are any. Where no registry tells of weaknesses that is said, and is no failure.
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
    """One pinned package; with a reason instead of a version where the registry knows nothing of it."""

    name: str
    version: str = ""
    vulns: list[Weakness] = []
    skip_reason: str = ""


class Answer(msgspec.Struct):
    """What pip-audit prints."""

    dependencies: list[Dependency]


def verdict(printed: bytes) -> tuple[int, list[str]]:
    """Exit code and what to tell, from what pip-audit printed."""
    try:
        dependencies = msgspec.json.decode(printed, type=Answer).dependencies
    except msgspec.DecodeError:
        return 0, ["dependencies not audited: no registry answered"]
    told = [
        f"{dependency.name} {dependency.version}: {weakness.id}, "
        + (f"repaired in {', '.join(weakness.fix_versions)}" if weakness.fix_versions else "not repaired yet")
        for dependency in dependencies
        for weakness in dependency.vulns
    ]
    unknown = sum(bool(dependency.skip_reason) for dependency in dependencies)
    known = len(dependencies) - unknown
    if not known:
        return 0, ["dependencies not audited: the registry in use tells of no weaknesses"]
    summary = f"{known} dependencies audited, {len(told)} weaknesses known"
    return int(bool(told)), [*told, summary + (f"; {unknown} could not be audited" if unknown else "")]


def main() -> None:
    """Ask, tell, and end with the verdict."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "timeout": LIMIT}
    try:
        printed = subprocess.run(AUDIT, check=False, **options).stdout
    except subprocess.TimeoutExpired:
        printed = b""
    code, told = verdict(printed)
    print("\n".join(told))  # noqa: T201 - a command
    sys.exit(code)


if __name__ == "__main__":
    main()
