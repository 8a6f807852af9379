"""The files around the code say what is true of it."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.feeders.__main__ import make_app as make_feeders_app
from bookbus.feeders.redis_server import server_command

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
COMPOSE, OVER_TLS = (
    YAML(typ="safe", pure=True).load((ROOT / name).read_text())
    for name in ("docker-compose.yml", "docker-compose.tls.yml")
)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if not line.startswith("#"))


def needed(requirement: Requirement, seen: set[str]) -> None:
    """Add the names of everything that this requirement installs here."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    name = canonicalize_name(requirement.name)
    if name in seen and not requirement.extras:
        return
    seen.add(name)
    try:
        listed = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return
    for inner in listed:
        environments = [{"extra": extra} for extra in ("", *requirement.extras)]
        if inner.marker is None or any(inner.marker.evaluate(environment) for environment in environments):
            inner.marker = None
            needed(inner, seen)


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_plain_make_lists_every_target() -> None:
    listed = subprocess.run(["make", "--silent"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607

    assert set(re.findall(r"^make ([a-z-]+) +\S", listed.stdout, re.MULTILINE)) == TARGETS


def test_every_target_is_one_whatever_files_there_are() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)

    assert set(phony.split()) == TARGETS


def test_ci_runs_the_command_that_the_readme_names() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make check-all PYTEST=--fail-on-skip"
    assert re.search(r"^check-all: test\b", MAKEFILE, re.MULTILINE)
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", (ROOT / "constraints.txt").read_text().splitlines()[1:])
def test_pin_is_exact_and_names_no_address(line: str) -> None:
    assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_full_version < \"[\d.]+\")?", line)


def test_everything_that_development_installs_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    installed: set[str] = set()
    for text in [text for group in groups for text in group if not text.startswith("bookbus")]:
        needed(Requirement(text), installed)

    # Pip is what installs, not what is installed.
    assert installed - {canonicalize_name(name) for name in pins()} - {"pip"} == set()


def test_no_tracked_file_names_a_machine_path_or_a_package_registry() -> None:
    unwanted = re.compile(
        "|".join(["/wo" + "rk/", "/ro" + "ot/", "pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\."])
    )

    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if unwanted.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_composed_service_has_no_rights_it_does_not_need(name: str) -> None:
    service = COMPOSE["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert "privileged" not in service


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_log_of_a_composed_service_has_a_limit(name: str) -> None:
    assert COMPOSE["services"][name]["logging"] == {
        "driver": "json-file",
        "options": {"max-size": "10m", "max-file": "3"},
    }


def test_images_are_named_by_exact_tags_that_a_digest_can_replace() -> None:
    exact = re.compile(r"(?:[\w-]+/)*[\w-]+:\d+\.\d+\.\d+(?:-[\w-]+)?")
    dockerfile = (ROOT / "Dockerfile").read_text()

    python = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    server = re.findall(r"^\$\{VALKEY_IMAGE:-(\S+)\}$", COMPOSE["services"]["redis"]["image"])

    assert [bool(exact.fullmatch(name)) for name in python + server] == [True, True]
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_composed_services_are_reached_from_this_machine_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_composed_server_takes_only_the_users_that_were_made_for_it() -> None:
    server = COMPOSE["services"]["redis"]

    assert server["command"][-2:] == ["--aclfile", "/etc/valkey/users.acl"]
    assert {"type": "bind", "source": "./secrets/users.acl", "target": "/etc/valkey/users.acl"}.items() <= next(
        volume.items() for volume in server["volumes"] if isinstance(volume, dict)
    )


def test_composed_feeders_of_a_pair_do_the_same() -> None:
    services = COMPOSE["services"]
    pairs = {name: name.removesuffix("-b") for name in services if name.endswith("-b")}

    assert set(pairs.values()) == {name for name in services if name.startswith("feeder-")} - set(pairs)
    for second, first in pairs.items():
        assert services[second] == services[first] | {"profiles": ["pair"]}


@pytest.mark.parametrize("services", [COMPOSE["services"], OVER_TLS["services"]], ids=["plain", "tls"])
def test_composed_service_logs_in_with_a_password_kept_apart(services: dict[str, Any]) -> None:
    assert set(services) == set(COMPOSE["services"])
    for name in set(services) - {"redis"}:
        role = "feeder" if name.startswith("feeder-") else "runner"
        scheme = "redis" if services is COMPOSE["services"] else "rediss"
        address = services[name]["environment"]["BOOKBUS_REDIS_URL"]
        assert address.startswith(f"{scheme}://{role}@redis:6379/0"), name
        assert COMPOSE["services"][name]["env_file"] == [f"secrets/{role}.env"], name


def test_server_over_tls_answers_nobody_without() -> None:
    command = OVER_TLS["services"]["redis"]["command"]

    assert command[: len(COMPOSE["services"]["redis"]["command"])] == COMPOSE["services"]["redis"]["command"]
    assert command[command.index("--port") + 1] == "0"
    assert "--tls-cert-file" in command


def test_what_was_made_in_secret_is_not_committed_or_put_into_an_image() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    dockerignore = (ROOT / ".dockerignore").read_text().splitlines()

    assert "secrets/" in ignored
    assert dockerignore[0] == "*"
    assert not any("secrets" in line for line in dockerignore)


def test_servers_listen_on_loopback_by_default() -> None:
    hosts = {
        name: parameter.default
        for app in (feeders_app, consumers_app)
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        # The host of `health` is whose feeders it asks for.
        if parameter.name == "host" and name != "health"
    }
    server = server_command(Path("server"), 1, Path("directory"), persistent=False)

    assert "simulate" in hosts
    assert set(hosts.values()) == {"127.0.0.1"}
    assert server[server.index("--bind") + 1] == "127.0.0.1"


def test_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert users[-1].split(":")[0] not in ("0", "root")
