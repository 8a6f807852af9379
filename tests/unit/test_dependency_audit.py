"""What `make check` says of the dependencies."""

import json
from collections.abc import Mapping

from tests.support.dependency_audit import verdict


def printed(*dependencies: Mapping[str, object]) -> bytes:
    return json.dumps({"dependencies": dependencies, "fixes": []}).encode()


SOUND = {"name": "redis", "version": "8.1.0", "vulns": []}
WEAK = {
    "name": "aiohttp",
    "version": "3.0.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["3.0.1", "3.1"], "aliases": []},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}
UNKNOWN = {"name": "msgspec", "skip_reason": "Dependency not found"}


def test_sound_dependencies_pass() -> None:
    assert verdict(printed(SOUND)) == (0, ["1 dependencies audited, 0 weaknesses known"])


def test_a_known_weakness_fails_and_is_named_with_its_repair() -> None:
    assert verdict(printed(SOUND, WEAK, UNKNOWN)) == (
        1,
        [
            "aiohttp 3.0.0: PYSEC-1, repaired in 3.0.1, 3.1",
            "aiohttp 3.0.0: PYSEC-2, not repaired yet",
            "2 dependencies audited, 2 weaknesses known; 1 could not be audited",
        ],
    )


def test_a_registry_that_knows_nothing_is_no_clean_bill() -> None:
    assert verdict(printed(UNKNOWN)) == (
        0,
        ["dependencies not audited: the registry in use has no data on weaknesses"],
    )


def test_without_a_registry_nothing_is_audited_and_nothing_fails() -> None:
    assert verdict(b"") == (0, ["dependencies not audited: no registry answered"])
