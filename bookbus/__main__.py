"""The one command: `bookbus WORD`, also `python -m bookbus WORD`. It has the commands of feeders and consumers under
words that say what they do; a word of theirs that is missing here goes on working, too."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from bookbus import __version__, program
from bookbus.consumers.__main__ import COMMANDS as CONSUMERS
from bookbus.feeders.__main__ import COMMANDS as FEEDERS

if TYPE_CHECKING:
    import typer

DESCRIPTION = "Correct exchange order books on Redis: feed, read, trade on paper, record."
_OWN = {
    "up": "bookbus.commands.up:up",
    "status": "bookbus.commands.up:status",
    "down": "bookbus.commands.up:down",
    "config": "bookbus.commands.config:config",
    "install-service": "bookbus.commands.install_service:install_service",
    "doctor": "bookbus.commands.doctor:doctor",
}
_PACKAGES = {"feeders": FEEDERS, "consumers": CONSUMERS, "bookbus": _OWN}

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Run everything": {
        "up": ("bookbus up", "run and supervise what bookbus.toml names, on this machine"),
        "status": ("bookbus status", "what is running"),
        "down": ("bookbus down", "end all of it"),
        "config": ("bookbus config", "check bookbus.toml, or print an example"),
        "install-service": ("bookbus install-service", "write units of systemd for it"),
    },
    "Publish books": {
        "feed": ("feeders run", "publish live books of one exchange to Redis"),
        "record": ("feeders record", "write what an exchange sends to a file"),
        "replay": ("feeders replay", "publish the books of a recording"),
        "export": ("consumers export", "write a recording as a table, for polars, pandas and others"),
        "simulate": ("feeders simulate", "run a simulated exchange"),
        "demo": ("feeders demo", "simulated exchange, feeder, server and two readers for half a minute"),
    },
    "Read books": {
        "books": ("consumers books", "every book of the bus: state, age, best prices, feeder"),
        "show": ("consumers show", "one book as it is stored"),
        "tail": ("consumers tail", "one line for each change of a book"),
        "readers": ("consumers list", "the readers of the bus, slow ones first"),
        "top": ("consumers top", "books, feeders and readers in the terminal, live"),
        "web": ("consumers web", "the live page"),
        "serve": ("consumers serve", "books as JSON and over WebSocket, for any language"),
        "arbitrage": ("consumers arbitrage", "price differences between exchanges"),
    },
    "Trade on paper": {
        "paper": ("consumers run", "trade on paper with a random strategy"),
        "calibrate": ("consumers calibrate", "measure fills in a recording"),
        "analyze": ("consumers analyze", "statistics and plots of a paper run"),
        "compare": ("consumers compare", "compare paper runs"),
    },
    "Operate": {
        "doctor": ("bookbus doctor", "look at server, clocks, exchanges and this machine, say what to change"),
        "health": ("feeders health", "whether a feeder on this host is alive and its books are live"),
        "audit": ("feeders audit", "compare stored books with the exchange's"),
        "redis": ("feeders redis", "start or stop the bundled server"),
        "acl": ("feeders acl", "users and passwords of the server"),
        "smoke": ("feeders smoke", "five minutes through the whole path, with a verdict"),
        "proxy": ("feeders proxy", "a faulty network between feeder and exchange"),
    },
}
"""The words in the order of the help: where each command is, and what it does."""

_FILE_NAME = "bookbus.toml"
_FILE_VARIABLE = "BOOKBUS_CONFIG"
# The names of bookbus.configuration, which is imported only if there is a file.

_TARGETS = {f"{package} {name}": target for package, table in _PACKAGES.items() for name, target in table.items()}
WORDS = {
    word: _TARGETS[command] for group in GROUPS.values() for word, (command, _) in group.items() if command in _TARGETS
}
"""The function of each word of the help, as `module:function`."""

ALIASES = {name: target for name, target in chain(CONSUMERS.items(), FEEDERS.items()) if name not in WORDS}
ALIASES["run"] = CONSUMERS["run"]
"""Further words, which the installed scripts had."""

QUICK: dict[str, str] = {"health": "bookbus.feeders.commands.health_check:main"}
"""Functions that do without the library of the command lines: they get the arguments and return the exit code, or None
if the command itself should take these arguments."""

_COMPLETION = ("--install-completion", "--show-completion")
_OPTIONS = {
    "--config FILE": "before the word: the file instead of ./bookbus.toml",
    "-h, --help": "this help; after a word, the help of that command",
    "--version": "print the version",
    "--install-completion": "complete words and options in this shell",
    "--show-completion": "print what --install-completion would write",
}


def main() -> None:
    """Entry point of `bookbus`."""
    arguments = sys.argv[1:]
    interrupt = program.prepare()
    if "_BOOKBUS_COMPLETE" in os.environ or (arguments and arguments[0] in _COMPLETION):
        return _complete(interrupt)
    arguments = _take_file(arguments)
    word, *rest = arguments or ["--help"]
    if word in ("-h", "--help"):
        sys.stdout.write(help_text())
    elif word == "--version":
        sys.stdout.write(f"{__version__}\n")
    elif word not in WORDS and word not in ALIASES:
        sys.exit(_refuse(word))
    else:
        _apply_file(word, rest)
        module, _, function = QUICK.get(word, "").partition(":")
        if module and (code := getattr(import_module(module), function)(rest)) is not None:
            sys.exit(code)
        extra = "feeder" if ".feeders." in target_of(word) else "monitor"
        program.run(lambda: make_app([word]), interrupt, f"bookbus {word}", extra, "bookbus")
    return None


def make_app(words: Iterable[str], *, completion: bool = False) -> "typer.Typer":
    """The command line with the commands of these words."""
    return program.make_app(DESCRIPTION, WORDS | ALIASES, words, completion=completion, reword=in_new_words)


def _take_file(arguments: list[str]) -> list[str]:
    """The arguments without `--config FILE` before the word, which is left in the environment."""
    option, equals, path = arguments[0].partition("=") if arguments else ("", "", "")
    if option != "--config":
        return arguments
    rest = arguments[1:]
    if not equals:
        path, rest = (rest[0], rest[1:]) if rest else ("", [])
    if not path:
        sys.exit("error: --config needs the path of a file")
    os.environ[_FILE_VARIABLE] = path
    sys.argv[1:] = rest
    return rest


def _apply_file(word: str, arguments: list[str]) -> None:
    """Set the environment variables that bookbus.toml means and that are not set: so an option wins over the
    environment, that over the file, and that over the option's default."""
    if target_of(word).startswith("bookbus.commands.") or not (
        os.environ.get(_FILE_VARIABLE) or os.path.exists(_FILE_NAME)
    ):
        return
    from bookbus.configuration import ConfigurationError, find, load

    path = find(os.environ)
    if path is None:
        return
    try:
        configuration = load(path)
        variables = configuration.common()
        if word == "feed":
            feeder_id = _value_of("--feeder-id", arguments) or os.environ.get("BOOKBUS_FEEDER_ID", "")
            exchange = _value_of("--exchange", arguments) or os.environ.get("BOOKBUS_EXCHANGE", "")
            asks_help = not {"-h", "--help"}.isdisjoint(arguments)
            name = None if asks_help else configuration.feeder_for(feeder_id, exchange)
            variables = configuration.of_feeder(name) if name else variables
        elif word in ("web", "serve"):
            variables = configuration.of_page(word)
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    for name, value in variables.items():
        if name == "BOOKBUS_REDIS_PASSWORD_FILE" and os.environ.get("BOOKBUS_REDIS_PASSWORD"):
            continue  # The environment says the password itself.
        if not os.environ.get(name):
            os.environ[name] = value


def _value_of(option: str, arguments: list[str]) -> str:
    """The value of an option among the arguments; empty if it is not there."""
    for number, argument in enumerate(arguments):
        if argument == option:
            return arguments[number + 1] if number + 1 < len(arguments) else ""
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return ""


def _complete(interrupt: Any) -> None:
    """Answer the shell, or set it up: only the command whose options are asked for is imported."""
    typed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    word = next((part for part in typed.split()[1:2] if part in WORDS and not typed.endswith(part)), "")

    def make() -> "typer.Typer":
        if word:
            return make_app([word], completion=True)
        return program.make_app(DESCRIPTION, dict.fromkeys(WORDS, ""), WORDS, completion=True)

    program.run(make, interrupt, "bookbus", "monitor", "bookbus")


def _refuse(word: str) -> str:
    near = get_close_matches(word, [*WORDS, *ALIASES], n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"error: bookbus has no command {word!r}: {meant}see bookbus --help"


def target_of(word: str) -> str:
    """The function of a word, as `module:function`."""
    return WORDS.get(word) or ALIASES[word]


def help_text() -> str:
    """The help: every word by group."""
    width = max(map(len, chain(WORDS, _OPTIONS))) + 2
    lines = ["Usage: bookbus [--config FILE] WORD [OPTIONS]", "", f"  {DESCRIPTION}"]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {word:{width}}{text}" for word, (_, text) in group.items() if word in WORDS]
    lines += ["", "Options:", *(f"  {name:{width}}{text}" for name, text in _OPTIONS.items())]
    return "\n".join([*lines, "", *_EXAMPLES, ""])


_EXAMPLES = (
    "Examples:",
    "  bookbus demo",
    "  bookbus feed --exchange binance --symbols BTC,ETH",
    "  bookbus books",
    "  bookbus show BTC",
)


def in_new_words(text: str) -> str:
    """A command's help with `python -m feeders run` written as `bookbus feed`."""

    def new(found: re.Match[str]) -> str:
        target = _TARGETS.get(f"{found[1]} {found[2]}")
        word = next((word for word, known in WORDS.items() if known == target), None)
        return f"bookbus {word}" if word else found[0]

    return re.sub(r"python -m (feeders|consumers) ([a-z-]+)", new, text)


if __name__ == "__main__":
    main()
