"""The product's imports, the table of rules for them, and the imports that break a rule.

An import counts wherever it stands in a module, also inside a function. `import threading` with a use of
`threading.Thread` counts as an import of `threading.Thread`. A module's `from package import module` is an import of
that module, not of the package.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

PACKAGES = ("schemas", "feeders", "consumers")

# Clocks, threads, event loops, logs, processes, the network.
IMPURE = (
    "asyncio",
    "concurrent",
    "threading",
    "multiprocessing",
    "subprocess",
    "signal",
    "socket",
    "ssl",
    "select",
    "selectors",
    "http",
    "urllib.request",
    "time",
    "logging",
    "redis",
    "hiredis",
    "websockets",
    "aiohttp",
    "uvloop",
)


@dataclass(frozen=True)
class Import:
    """`used_of` is the module whose attribute `name` is, where a module is imported as a whole."""

    name: str
    line: int
    at_run_time: bool = True
    used_of: str = ""


@dataclass(frozen=True)
class Rule:
    """Modules that match `who`, but not `allowed`, import nothing that matches `what`, but not `besides`.

    A pattern is a dotted name, `*` allowed in each part; it matches the name and everything inside. With `reach`, what
    the imported modules import when they run counts, too. `planted` is a module and a source that breaks it.
    """

    says: str
    who: tuple[str, ...]
    what: tuple[str, ...]
    planted: tuple[str, str]
    allowed: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    reach: bool = False


_COMMANDS = ("bookbus.commands", "bookbus.*.commands", "bookbus.*.__main__")

RULES = (
    Rule(
        "nobody imports tests, or ours by another name than bookbus",
        who=("bookbus",),
        what=("tests", *PACKAGES),
        planted=("bookbus.feeders.feed", "from schemas.wire import encode"),
    ),
    Rule(
        "schemas import nothing of ours",
        who=("bookbus.schemas",),
        what=("bookbus",),
        besides=("bookbus.schemas", "bookbus._checkout"),
        planted=("bookbus.schemas.wire", "from bookbus.feeders.feed import Feed"),
    ),
    Rule(
        "feeders import no consumer",
        who=("bookbus.feeders",),
        what=("bookbus.consumers",),
        planted=("bookbus.feeders.feed", "from bookbus.consumers import reading"),
    ),
    Rule(
        "consumers import feeders in the direct provider and the captures alone",
        who=("bookbus.consumers",),
        what=("bookbus.feeders",),
        allowed=("bookbus.consumers.direct_provider", "bookbus.consumers.captures"),
        planted=("bookbus.consumers.redis_provider", "import bookbus.feeders.errors"),
    ),
    Rule(
        "consumers start no server and no simulator, and publish nothing",
        who=("bookbus.consumers",),
        what=("bookbus.feeders.redis_server", "bookbus.feeders.simulator", "bookbus.feeders.bus"),
        planted=("bookbus.consumers.direct_provider", "from bookbus.feeders.redis_server import LocalServer"),
    ),
    Rule(
        "commands alone import the common command line",
        who=("bookbus",),
        what=("bookbus.command_line",),
        allowed=_COMMANDS,
        planted=("bookbus.feeders.markets", "from bookbus.command_line import fail"),
    ),
    Rule(
        "the common command line imports neither feeders nor consumers",
        who=("bookbus.command_line",),
        what=("bookbus.feeders", "bookbus.consumers"),
        planted=("bookbus.command_line", "from bookbus.feeders.markets import Markets"),
    ),
    Rule(
        "the one command imports the tables of both packages, and their commands by name",
        who=("bookbus.__main__",),
        what=("bookbus.feeders", "bookbus.consumers"),
        besides=("bookbus.feeders.__main__", "bookbus.consumers.__main__"),
        planted=("bookbus.__main__", "from bookbus.feeders.commands.run import run"),
    ),
    Rule(
        "configuration, supervision and their commands start the others as processes",
        who=("bookbus.configuration", "bookbus.supervisor", "bookbus.units", "bookbus.commands"),
        what=("bookbus.feeders", "bookbus.consumers"),
        allowed=("bookbus.commands.doctor",),
        planted=("bookbus.supervisor", "from bookbus.feeders.feeder import Feeder"),
    ),
    Rule(
        "the doctor imports of the feeders their connection and the addresses of exchanges alone",
        who=("bookbus.doctor", "bookbus.commands.doctor"),
        what=("bookbus.feeders", "bookbus.consumers"),
        besides=("bookbus.feeders.bus.connection", "bookbus.feeders.venue"),
        planted=("bookbus.doctor", "from bookbus.feeders.bus.servers import control_client"),
    ),
    Rule(
        "the one command and its own commands alone import configuration and supervision",
        who=("bookbus",),
        what=("bookbus.configuration", "bookbus.supervisor", "bookbus.units", "bookbus.doctor"),
        allowed=("bookbus.__main__", "bookbus.supervisor", "bookbus.units", "bookbus.commands"),
        planted=("bookbus.feeders.commands.run", "from bookbus.configuration import load"),
    ),
    Rule(
        "nobody imports the one command",
        who=("bookbus",),
        what=("bookbus.__main__",),
        planted=("bookbus.feeders.feeder", "from bookbus.__main__ import WORDS"),
    ),
    Rule(
        "nobody imports a command",
        who=("bookbus",),
        what=("bookbus.commands", "bookbus.*.commands"),
        allowed=_COMMANDS,
        planted=("bookbus.consumers.paper.runner", "from bookbus.consumers.commands.run import run"),
    ),
    Rule(
        "pure modules reach no clock, thread, log or network",
        who=(
            "bookbus.schemas",
            "bookbus.feeders.books",
            "bookbus.feeders.venue",
            "bookbus.feeders.exchanges.*_protocol",
        ),
        what=IMPURE,
        reach=True,
        planted=("bookbus.feeders.books.order_book", "import time"),
    ),
    Rule(
        "the bus reaches no exchange",
        who=("bookbus.feeders.bus",),
        what=("bookbus.feeders.exchanges",),
        reach=True,
        planted=("bookbus.feeders.bus.outbox", "from bookbus.feeders.exchanges.adapter import Adapter"),
    ),
    Rule(
        "exchanges, books and feeds reach no bus: they meet in feeder.py, replay.py and commands alone",
        who=("bookbus.feeders",),
        what=("bookbus.feeders.bus",),
        allowed=("bookbus.feeders.bus", "bookbus.feeders.feeder", "bookbus.feeders.replay", *_COMMANDS),
        reach=True,
        planted=("bookbus.feeders.exchange_feed", "from bookbus.feeders.bus.publisher import Publisher"),
    ),
    Rule(
        "the simulator imports schemas alone",
        who=("bookbus.feeders.simulator",),
        what=("bookbus",),
        besides=("bookbus.schemas", "bookbus.feeders.simulator"),
        planted=("bookbus.feeders.simulator.core.feed", "from bookbus.feeders.books.order_book import OrderBook"),
    ),
    Rule(
        "commands alone import the simulator",
        who=("bookbus",),
        what=("bookbus.feeders.simulator",),
        allowed=("bookbus.feeders.simulator", *_COMMANDS),
        planted=("bookbus.feeders.replay", "from bookbus.feeders.simulator.process import start"),
    ),
    Rule(
        "providers import neither paper trading nor analysis",
        who=("bookbus.consumers",),
        what=("bookbus.consumers.paper", "bookbus.consumers.analysis"),
        allowed=("bookbus.consumers.paper", "bookbus.consumers.analysis", *_COMMANDS),
        planted=("bookbus.consumers.mock_provider", "from bookbus.consumers.paper.settings import Settings"),
    ),
    Rule(
        "commands alone import the page",
        who=("bookbus",),
        what=("bookbus.consumers.web",),
        allowed=("bookbus.consumers.web", *_COMMANDS),
        planted=("bookbus.consumers.redis_provider", "from bookbus.consumers.web.view import BusView"),
    ),
    Rule(
        "websockets in the client and in one module of the simulator",
        who=("bookbus",),
        what=("websockets",),
        allowed=("bookbus.feeders.websocket_client", "bookbus.feeders.simulator.core.websocket_server"),
        planted=("bookbus.feeders.exchange_feed", "from websockets.exceptions import ConnectionClosed"),
    ),
    Rule(
        "one module a package starts threads",
        who=("bookbus",),
        what=("threading.Thread", "concurrent.futures.ThreadPoolExecutor"),
        allowed=("bookbus.consumers.background_loop", "bookbus.command_line"),
        planted=("bookbus.consumers.bus.poller", "import threading\nthreading.Thread(target=print)"),
    ),
    Rule(
        "aiohttp in the REST client and the server of the page alone",
        who=("bookbus",),
        what=("aiohttp",),
        allowed=("bookbus.feeders.rest_client", "bookbus.consumers.web"),
        planted=("bookbus.feeders.markets", "import aiohttp"),
    ),
    Rule(
        "redis-py in one module a package",
        who=("bookbus",),
        what=("redis",),
        allowed=("bookbus.feeders.bus.servers", "bookbus.consumers.bus.servers"),
        planted=("bookbus.consumers.redis_provider", "from redis.exceptions import RedisError"),
    ),
    Rule(
        "hiredis in one module a package",
        who=("bookbus",),
        what=("hiredis",),
        allowed=("bookbus.feeders.bus.connection", "bookbus.consumers.bus.connection"),
        planted=("bookbus.feeders.bus.publish_script", "import hiredis"),
    ),
    Rule(
        "command lines in commands alone",
        who=("bookbus",),
        what=("typer", "rich", "sys.argv"),
        allowed=("bookbus.command_line", "bookbus.program", "bookbus.__main__", *_COMMANDS),
        planted=("bookbus.consumers.analysis.report", "from rich.table import Table"),
    ),
    Rule(
        "the environment is read in commands alone, but for the user's cache directory",
        who=("bookbus",),
        what=("os.environ", "os.getenv"),
        allowed=("bookbus.command_line", "bookbus.__main__", *_COMMANDS, "bookbus.feeders.markets"),
        planted=("bookbus.feeders.feed", "import os\nurl = os.environ['BOOKBUS_REDIS_URL']"),
    ),
)


@dataclass(frozen=True)
class Violation:
    """`module` breaks `rule` by what `importer` imports, which is the module itself or one that it reaches."""

    rule: Rule
    module: str
    importer: str
    found: Import

    def __str__(self) -> str:
        through = "" if self.importer == self.module else f" reaches {self.importer}, which"
        return f"{self.module}{through} imports {self.found.name} in line {self.found.line}: {self.rule.says}"


def source_files(root: Path) -> list[Path]:
    """Every file with code of the product in a checkout; the links inside `bookbus` are not followed."""
    found = [*(root / "bookbus").glob("*.py"), *(root / "bookbus" / "commands").glob("*.py")]
    for package in PACKAGES:
        found += [path for path in (root / package).rglob("*") if path.suffix in {".py", ".lua"}]
    return sorted(found)


class Product:
    """Every module of a checkout and what it imports.

    A checkout from before the import name `bookbus` is given the names that it would have with it.
    """

    def __init__(self, files: Mapping[str, Path], imports: Mapping[str, list[Import]]) -> None:
        self.files = files
        self.imports = imports

    @classmethod
    def read(cls, root: Path) -> "Product":
        renamed = not (root / "bookbus").exists()
        files: dict[str, Path] = {}
        for path in source_files(root):
            if path.suffix != ".py":
                continue
            parts = ("bookbus", *path.relative_to(root).with_suffix("").parts)
            parts = parts[1:] if parts[1] == "bookbus" else parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        imports = {
            name: imports_of(path.read_text(), name, is_package=path.name == "__init__.py")
            for name, path in files.items()
        }
        if renamed:
            imports = {
                name: [
                    replace(one, name=f"bookbus.{one.name}") if matches(one.name, PACKAGES) else one for one in found
                ]
                for name, found in imports.items()
            }
        return cls(files, imports)

    def with_module(self, name: str, source: str) -> "Product":
        """The product if the module also held `source`."""
        return Product(self.files, {**self.imports, name: [*self.imports.get(name, []), *imports_of(source, name)]})

    def module_of(self, name: str) -> str | None:
        """The module of the product that an import of `name` imports."""
        parts = name.split(".")
        candidates = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((candidate for candidate in candidates if candidate in self.imports), None)

    def imported_by(self, module: str, *, at_run_time: bool = False) -> set[str]:
        """The other modules of the product that a module imports."""
        wanted = (one for one in self.imports[module] if one.at_run_time or not at_run_time)
        return {found for one in wanted if (found := self.module_of(one.name)) is not None} - {module}

    def reached_from(self, module: str) -> set[str]:
        """The module and every module of the product that it imports when it runs, directly or not."""
        reached: set[str] = set()
        waiting = [module]
        while waiting:
            if (name := waiting.pop()) not in reached:
                reached.add(name)
                waiting += self.imported_by(name, at_run_time=True)
        return reached

    def circles(self) -> list[list[str]]:
        """The groups of modules each of which imports every other when it runs, directly or not."""
        reached = {module: self.reached_from(module) for module in self.imports}
        groups = {frozenset(other for other in found if module in reached[other]) for module, found in reached.items()}
        return sorted(sorted(group) for group in groups if len(group) > 1)

    def violations(self, rule: Rule) -> Iterator[Violation]:
        for module in self.imports:
            if not matches(module, rule.who) or matches(module, rule.allowed):
                continue
            for importer in sorted(self.reached_from(module)) if rule.reach else [module]:
                if importer != module and matches(importer, rule.what):
                    continue  # what leads there is the violation
                for one in self.imports[importer]:
                    wrong = matches(one.name, rule.what) and not matches(one.name, rule.besides)
                    if wrong and not matches(one.used_of, rule.what) and (one.at_run_time or not rule.reach):
                        yield Violation(rule, module, importer, one)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    parts = name.split(".")
    return any(
        len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split(".") for pattern in patterns)
    )


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    tree = ast.parse(source)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: list[Import] = []
    whole: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append(Import(alias.name, node.lineno, node not in for_types))
                top = alias.name.partition(".")[0]
                whole[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")
            package = package[: len(package) - node.level + is_package] if node.level else []
            origin = ".".join([*package, *filter(None, [node.module])])
            found += [Import(f"{origin}.{alias.name}", node.lineno, node not in for_types) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            used = whole[node.value.id]
            found.append(Import(f"{used}.{node.attr}", node.lineno, node not in for_types, used_of=used))
    return found
