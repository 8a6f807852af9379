"""What is built installs into an empty environment and works there, as a package and as the image of the Dockerfile."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import redis
from ruamel.yaml import YAML

from bookbus.consumers import PUBLIC_NAMES
from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSED = YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yml").read_text())["services"]
METADATA = {"LICENSE", "PKG-INFO", "README.md", "bookbus.egg-info", "pyproject.toml", "setup.cfg"}
NEEDED = {
    "bookbus/py.typed",
    "bookbus/feeders/bus/publish.lua",
    "bookbus/feeders/bus/trade.lua",
    "bookbus/consumers/paper/examples/binance_20240808_btc_eth.json",
}
NEEDS_FEEDER_EXTRA = {"BinanceL2WebSocketProvider", "UpbitL2WebSocketProvider"}
SIMULATED = {"binance": ["BTCUSDT", "ETHUSDT"], "upbit": ["KRW-BTC", "KRW-ETH"]}
NO_SERVER = {"BOOKBUS_REDIS_URL": "redis://127.0.0.1:1/0"}
EXTRAS = ("", "monitor", "analysis", "embedded", "feeder", "data")
READS = ("monitor", "analysis", "feeder")
"""Extras that bring what a reader's command needs."""
LIMIT = 30.0


def commands_of_the_image() -> dict[str, list[str]]:
    """Every command that the Dockerfile or a composed service starts, by where it stands."""
    (default,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    commands = {"Dockerfile": json.loads(default)}
    for name, service in COMPOSED.items():
        if service["image"] == "bookbus":
            commands[name] = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", argument) for argument in service["command"]]
    return commands


COMMANDS = commands_of_the_image()
(HEALTH_CHECK,) = (json.loads(text) for text in re.findall(r"^HEALTHCHECK .* CMD (.*)$", DOCKERFILE, re.MULTILINE))
FEEDERS = {where: command for where, command in COMMANDS.items() if "run" in command}
READERS = {where: command for where, command in COMMANDS.items() if "run" not in command}


class Environment:
    """An environment with nothing in it, and then what is installed."""

    def __init__(self, directory: Path, extra: str = "") -> None:
        self.directory = directory
        self.extra = extra
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)

    def install(self, *what: str, cwd: Path = ROOT) -> None:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(self.python),
            "install",
            "-qq",
        ]
        subprocess.run([*pip, *what], cwd=cwd, check=True)

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def variables(self, home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment variables of a process in it; nothing of this checkout's."""
        path = f"{self.directory / 'bin'}{os.pathsep}{os.defpath}"
        return {"PATH": path, "HOME": str(home), "PYTHONUNBUFFERED": "1", **(more or {})}

    def run(self, *command: str, cwd: Path, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        program = self.directory / "bin" / command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=cwd, env=self.variables(cwd, more), capture_output=True, text=True, check=False
        )

    def printed(self, program: str, cwd: Path) -> str:
        """What a Python program prints, which must succeed."""
        ran = self.run("python", "-c", program, cwd=cwd)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


def tracked_files() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [name for name in listed.stdout.split("\0") if name and os.path.lexists(ROOT / name)]


def copied(names: list[str], to: Path) -> Path:
    """A directory with these files of the checkout; links stay links."""
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def sent_to_docker(name: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that matches it or a folder above it decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(/.*)?", name):
            sent = line.startswith("!")
    return sent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel that is built from it."""
    source = copied(tracked_files(), tmp_path_factory.mktemp("source"))
    built = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "build", "--outdir", built, source], capture_output=True, check=True)
    return built


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with what it needs itself, no extra."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install("-c", "constraints.txt", *map(str, built.glob("*.whl")))
    return environment


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the Dockerfile installs of the files that .dockerignore lets through."""
    context = copied([name for name in tracked_files() if sent_to_docker(name)], tmp_path_factory.mktemp("context"))
    (options,) = re.findall(r"pip install --no-cache-dir (.*)$", DOCKERFILE, re.MULTILINE)
    environment = Environment(tmp_path_factory.mktemp("image"))
    environment.install(*shlex.split(options), cwd=context)
    return environment


def test_sdist_holds_bookbus_alone(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]

    assert {name.partition("/")[0] for name in names if name} == METADATA | {"bookbus"}
    assert set(names) >= NEEDED


def test_wheel_holds_bookbus_alone(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bookbus"}
    assert set(names) >= NEEDED


def test_wheel_holds_every_module_of_the_checkout(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        modules = {name for name in wheel.namelist() if name.endswith(".py")}

    tracked = [name for name in tracked_files() if name.endswith(".py") and not name.startswith("tests/")]
    assert modules == {name if name.startswith("bookbus/") else f"bookbus/{name}" for name in tracked}


@pytest.fixture(scope="module", params=EXTRAS)
def with_extra(built: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Environment:
    """The wheel with one extra alone, in an environment of its own."""
    environment = Environment(tmp_path_factory.mktemp("extra"), request.param)
    (wheel,) = built.glob("*.whl")
    environment.install("-c", "constraints.txt", f"{wheel}[{request.param}]" if request.param else str(wheel))
    return environment


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("show", "BTC"), ("list",), ("run", "--help")])
def test_the_readers_script_runs_or_names_the_extra(
    with_extra: Environment, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ran = with_extra.run("bookbus", *arguments, cwd=tmp_path, more=NO_SERVER)

    if with_extra.extra not in READS and arguments and not arguments[0].startswith("-"):
        named = f"bookbus {arguments[0]}"
        assert (ran.returncode, ran.stderr) == (1, f"error: {named} needs typer: pip install 'bookbus[monitor]'\n")
    else:
        assert "Traceback" not in ran.stderr
        assert "pip install" not in ran.stderr
        assert ran.stdout or ran.stderr.startswith(("error: ", "Usage: "))


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("health",), ("run",)])
def test_the_feeders_script_runs_or_names_the_extra(
    with_extra: Environment, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ran = with_extra.run("bookbus-feeder", *arguments, cwd=tmp_path, more=NO_SERVER)

    assert "Traceback" not in ran.stderr
    if with_extra.extra == "feeder" or (with_extra.extra in READS and arguments == ("health",)):
        assert "pip install" not in ran.stderr
        assert ran.stdout or ran.stderr.startswith(("error: ", "Usage: "))
    else:
        assert ran.returncode == 1
        assert re.fullmatch(r"error: bookbus-feeder.* needs \w+: pip install 'bookbus\[feeder\]'\n", ran.stderr)


@pytest.mark.parametrize("name", sorted(NEEDS_FEEDER_EXTRA))
def test_a_provider_that_needs_an_extra_names_it(with_extra: Environment, tmp_path: Path, name: str) -> None:
    ran = with_extra.run("python", "-c", f"from bookbus import {name}", cwd=tmp_path)

    last = ran.stderr.splitlines()[-1] if ran.stderr else ""
    missing = f"ImportError: {name} needs (aiohttp|websockets): pip install 'bookbus\\[feeder\\]'"
    assert re.fullmatch("" if with_extra.extra == "feeder" else missing, last)


@pytest.mark.parametrize("with_extra", ["monitor", "analysis"], indirect=True)
@pytest.mark.parametrize("source", ["binance", "upbit", "multi", "capture:tape.jsonl"])
def test_a_source_that_needs_an_extra_names_it(with_extra: Environment, tmp_path: Path, source: str) -> None:
    (tmp_path / "tape.jsonl").touch()

    ran = with_extra.run("bookbus", "run", "--log-level", "error", "--l2-source", source, cwd=tmp_path)

    assert ran.returncode == 1
    assert re.fullmatch(r"error: .* needs (aiohttp|websockets): pip install 'bookbus\[feeder\]'\n", ran.stderr)


@pytest.mark.parametrize("with_extra", sorted(READS), indirect=True)
def test_a_mock_run_needs_no_feeder(with_extra: Environment, tmp_path: Path) -> None:
    ran = with_extra.run("bookbus", "run", "--duration-seconds", "1", "--trade-interval", "0.5", cwd=tmp_path)

    assert (ran.returncode, len(list(tmp_path.rglob("kpi_*.json")))) == (0, 1), ran.stderr


def test_importing_bookbus_imports_no_library(installed: Environment, tmp_path: Path) -> None:
    printed = installed.printed("import bookbus, sys\nprint({'redis', 'msgspec'} & set(sys.modules))", tmp_path)

    assert printed == "set()\n"


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES.keys() - NEEDS_FEEDER_EXTRA))
def test_public_name_needs_no_extra(installed: Environment, tmp_path: Path, name: str) -> None:
    assert installed.printed(f"from bookbus import {name}\nprint({name}.__name__)", tmp_path) == f"{name}\n"


def test_installed_reader_reads_a_book(installed: Environment, tmp_path: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        BusWriter(client).update("BTC-USDT", update_id=7)

    printed = installed.printed(
        "from bookbus import RedisMarketDataProvider\n"
        f"with RedisMarketDataProvider({redis_url!r}, 'binance', ['BTC-USDT']) as provider:\n"
        "    print(provider.get_latest_snapshot('BTC-USDT').update_id)\n",
        tmp_path,
    )

    assert printed == "7\n"


def test_bot_with_modules_of_the_same_names_keeps_its_own(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    for name in ("schemas/__init__.py", "consumers.py", "feeders.py"):
        (tmp_path / name).write_text("OWNER = 'bot'\n")
    (tmp_path / "bot.py").write_text(
        "import consumers, feeders, schemas\n"
        "from bookbus import OrderBookSnapshot, RedisMarketDataProvider\n"
        "from bookbus.consumers.redis_provider import RedisMarketDataProvider as same\n"
        "import bookbus.feeders, bookbus.schemas.wire\n"
        "print(consumers.OWNER, feeders.OWNER, schemas.OWNER, same is RedisMarketDataProvider)\n"
    )

    ran = installed.run("python", "bot.py", cwd=tmp_path)

    assert (ran.stdout, ran.stderr) == ("bot bot bot True\n", "")


def test_types_of_the_installed_package_are_seen(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from bookbus import RedisMarketDataProvider\nreveal_type(RedisMarketDataProvider('', '', []).symbols)\n"
        "RedisMarketDataProvider(1, 2, 3)\n"
    )

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python, "bot.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout

    assert re.findall(r"bot\.py:(\d+): (\w+): .*\[(arg-type)\]", checked) == [("3", "error", "arg-type")] * 3


class Running:
    """A command of the image, and what it wrote."""

    def __init__(self, image: Environment, command: list[str], directory: Path, more: Mapping[str, str]) -> None:
        self._log = directory / "log"
        with self._log.open("w") as log:
            program = image.directory / "bin" / command[0]
            environment = image.variables(directory, more)
            self.process = subprocess.Popen(
                [program, *command[1:]], cwd=directory, env=environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until it did something. Raises AssertionError with what it wrote if it ends before."""

        def done() -> object:
            assert self.process.poll() is None, self.log
            return condition()

        wait_for(done, LIMIT)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("where", FEEDERS)
def test_feeder_of_the_image_publishes_and_its_health_check_sees_it(
    image: Environment, tmp_path: Path, redis_url: str, where: str
) -> None:
    command, bus = FEEDERS[where], {"BOOKBUS_REDIS_URL": redis_url}
    exchange = command[command.index("--exchange") + 1]
    with SimulatorProcess(SIMULATED[exchange], exchange=exchange) as simulated:
        before = image.run(*HEALTH_CHECK, cwd=tmp_path, more=bus)

        addresses = {"BOOKBUS_WS_URL": simulated.ws_url, "BOOKBUS_REST_URL": simulated.rest_url}
        with redis.Redis.from_url(redis_url) as client, Running(image, command, tmp_path, bus | addresses) as feeder:
            feeder.wait_for(lambda: client.scard("md:books") == len(SIMULATED[exchange]))
            after = image.run(*HEALTH_CHECK, cwd=tmp_path, more=bus)
            feeder.process.terminate()
            code = feeder.process.wait(LIMIT)

    assert (before.returncode, after.returncode, code) == (1, 0, 0)


@pytest.mark.parametrize("where", READERS)
def test_reader_of_the_image_prints_a_book(image: Environment, tmp_path: Path, redis_url: str, where: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        BusWriter(client).update("BTC-USDT")
        with Running(image, READERS[where], tmp_path, {"BOOKBUS_REDIS_URL": redis_url}) as reader:
            reader.wait_for(lambda: "BTC-USDT" in reader.log)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("pyproject.toml", True),
        ("bookbus/__init__.py", True),
        ("feeders/bus/publish.lua", True),
        ("feeders/bus/trade.lua", True),
        ("feeders/__pycache__/feed.pyc", False),
        ("tests/conftest.py", False),
        ("secrets/feeder.env", False),
        (".git/config", False),
    ],
)
def test_image_gets_code_and_nothing_else(name: str, sent: bool) -> None:
    assert sent_to_docker(name) is sent
