"""Units of systemd: their text, and what systemd's own check says of them."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bookbus.configuration import Configuration, parse
from bookbus.units import FEEDER, default_directory, names_of, units_of, write

TEXT = """
[redis]
url = "redis://feeder@127.0.0.1:6379/0"
password_file = "password"

[feeders.binance]
[feeders.upbit-2]
[web]
"""


def configured(directory: Path, text: str = TEXT) -> Configuration:
    return parse(text, directory / "bookbus.toml")


def settings(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition("=") for line in text.splitlines()) if value]


def test_feeder_is_an_instance_that_notifies_and_is_watched(tmp_path: Path) -> None:
    text = units_of(configured(tmp_path), "/opt/bookbus/bin/python")[FEEDER]

    found = dict(settings(text))
    assert found["Type"] == "notify"
    assert found["WatchdogSec"] == "30"
    assert found["ExecStart"] == "/opt/bookbus/bin/python -m bookbus feed --feeder-id %i"
    assert found["Restart"] == "always"
    assert found["DynamicUser"] == found["NoNewPrivileges"] == "yes"
    assert found["LoadCredential"] == f"redis-password:{tmp_path}/password"
    environment = [value for name, value in settings(text) if name == "Environment"]
    assert environment == [
        f'"BOOKBUS_CONFIG={tmp_path}/bookbus.toml"',
        '"XDG_CACHE_HOME=%C"',
        '"BOOKBUS_REDIS_PASSWORD_FILE=%d/redis-password"',
    ]


def test_units_and_names_are_those_of_the_file(tmp_path: Path) -> None:
    configuration = configured(tmp_path)

    assert list(units_of(configuration, "/p")) == [FEEDER, "bookbus-web.service"]
    assert names_of(configuration) == [
        "bookbus-feeder@binance.service",
        "bookbus-feeder@upbit-2.service",
        "bookbus-web.service",
    ]
    assert units_of(configured(tmp_path, ""), "/p") == {}


def test_unit_of_a_user_has_what_a_user_may_do(tmp_path: Path) -> None:
    text = units_of(configured(tmp_path), "/p", user=True)[FEEDER]

    assert "DynamicUser" not in text
    assert "LoadCredential" not in text
    assert "WantedBy=default.target" in text


def test_interpreter_in_a_home_can_be_reached(tmp_path: Path) -> None:
    assert "ProtectHome=read-only" in units_of(configured(tmp_path), "/home/me/.venv/bin/python")[FEEDER]
    assert "ProtectHome=yes" in units_of(configured(Path("/etc/bookbus")), "/opt/bookbus/bin/python")[FEEDER]


def test_path_with_special_characters_is_escaped(tmp_path: Path) -> None:
    directory = tmp_path / "100% ours"

    text = units_of(configured(directory), "/a b/python")[FEEDER]

    assert f'Environment="BOOKBUS_CONFIG={tmp_path}/100%% ours/bookbus.toml"' in text
    assert 'ExecStart="/a b/python" -m bookbus' in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, user: bool) -> None:
    units = write(units_of(configured(tmp_path), sys.executable, user=user), tmp_path / "units")
    names = [str(path) for path in units]

    checked = verify(*names, user=user)

    assert len(names) == 2
    assert (checked.returncode, complaints(checked)) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    text = units_of(configured(tmp_path), sys.executable)[FEEDER].replace("Type=notify", "Type=notifies")
    (path,) = write({FEEDER: text}, tmp_path)

    assert complaints(verify(str(path)))


def verify(*names: str, user: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which("systemd-analyze")), *(["--user"] if user else []), "verify", "--man=no", *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "/tmp")},  # noqa: S108
    )


def complaints(checked: subprocess.CompletedProcess[str]) -> list[str]:
    """What it says of our units; it also checks those of the machine that ours need."""
    return [line for line in (checked.stdout + checked.stderr).splitlines() if "bookbus" in line]


def test_only_units_that_changed_are_written(tmp_path: Path) -> None:
    units = units_of(configured(tmp_path), "/p")

    assert len(write(units, tmp_path / "units")) == 2
    assert write(units, tmp_path / "units") == []
    changed = units_of(configured(tmp_path), "/q")
    assert len(write(changed, tmp_path / "units")) == 2
    assert sorted(path.name for path in (tmp_path / "units").iterdir()) == sorted(units)


def test_unit_can_be_read_as_an_ini_file(tmp_path: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)

    parser.read_string(units_of(configured(tmp_path), "/p")[FEEDER])

    assert parser.sections() == ["Unit", "Service", "Install"]


@pytest.mark.parametrize(
    ("user", "config_home", "expected"),
    [
        (False, None, "/etc/systemd/system"),
        (True, None, "/home/me/.config/systemd/user"),
        (True, "/c", "/c/systemd/user"),
    ],
)
def test_directory_is_where_systemd_looks(user: bool, config_home: str | None, expected: str) -> None:
    assert default_directory(user=user, home=Path("/home/me"), config_home=config_home) == Path(expected)
