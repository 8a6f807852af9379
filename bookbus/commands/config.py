"""`config`: what bookbus.toml says, checked."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import fail
from bookbus.configuration import FILE_NAME, VARIABLE, Configuration, ConfigurationError, find, load
from bookbus.schemas.redis_url import DEFAULT_URL, masked

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", envvar=VARIABLE, help=f"The file; by default {FILE_NAME} in the current directory."),
]


class Action(StrEnum):
    CHECK = "check"
    ENV = "env"
    EXAMPLE = "example"


EXAMPLE = """\
# What `bookbus up` runs. Every value is the same as an option; the option and the environment win over it.
log_level = "info"

[redis]
url = "redis://127.0.0.1:6379/0"        # with users: redis://feeder@127.0.0.1:6379/0
# password_file = "secrets/feeder.password"
prefix = "md"

[feeders.binance]                       # the feeder's name; its exchange, if `exchange` does not say another
symbols = ["BTC", "ETH"]                # or "all:USDT", "top:50"
depth = 20
topics = ["book", "trades"]
lines = 2

[feeders.upbit]
symbols = ["BTC", "ETH", "USDT"]

[programs.server]                       # any other command of bookbus, as its words
command = ["redis", "--port", "6379"]
"""


def config(
    action: Annotated[
        Action,
        typer.Argument(help="check the file, print the variables of a part (env), or print an example."),
    ] = Action.CHECK,
    part: Annotated[str, typer.Argument(help="For env: a feeder's name, web or serve; else what all share.")] = "",
    file: ConfigFile = None,
) -> None:
    """Check bookbus.toml: exit code 0 if it is right, 1 and one line that names the place if not.

    `env NAME` prints the environment variables that mean the same, for a container or a service; passwords and tokens
    are in files and not printed.

    \b
      bookbus config check
      bookbus config check --config /etc/bookbus/bookbus.toml
      bookbus config env binance > binance.env
      bookbus config example > bookbus.toml
    """
    if action is Action.EXAMPLE:
        typer.echo(EXAMPLE, nl=False)
        return
    configuration = load_or_fail(file)
    if action is Action.ENV:
        typer.echo("\n".join(f"{name}={value}" for name, value in _variables(configuration, part).items()))
        return
    for line in summary(configuration):
        typer.echo(line)
    for name in overridden(configuration):
        typer.echo(f"note: {name} in the environment wins over the file")


def load_or_fail(file: Path | None) -> Configuration:
    """The file with this path, or the one that is found. Exits with an error that names the place."""
    path = file or find(os.environ)
    if path is None:
        fail(f"no {FILE_NAME} here: name one with --config, or write one: bookbus config example > {FILE_NAME}")
    try:
        return load(path)
    except ConfigurationError as error:
        fail(str(error))


def summary(configuration: Configuration) -> list[str]:
    """One line for each thing that the file names."""
    lines = [f"redis {masked(configuration.redis.url or DEFAULT_URL)}"]
    for name in configuration.feeders:
        variables = configuration.of_feeder(name)
        symbols = variables.get("BOOKBUS_SYMBOLS", "the default symbols")
        lines.append(f"feeder {name}: {variables['BOOKBUS_EXCHANGE']} {symbols}")
    lines += [word for word in ("web", "serve") if getattr(configuration, word) is not None]
    lines += [f"program {name}: {' '.join(one.command)}" for name, one in configuration.programs.items()]
    return lines


def overridden(configuration: Configuration) -> list[str]:
    """The variables of the file that the environment has with another value."""
    variables = configuration.common()
    for name in configuration.feeders:
        variables |= configuration.of_feeder(name)
    values = {name: value for name, value in variables.items() if os.environ.get(name, "") not in ("", value)}
    return sorted(values)


def _variables(configuration: Configuration, part: str) -> dict[str, str]:
    if not part:
        return configuration.common()
    if part in configuration.feeders:
        return configuration.of_feeder(part)
    if part in ("web", "serve"):
        variables = configuration.of_page(part)
        variables.pop("BOOKBUS_WEB_TOKEN", None)
        return variables
    return fail(f"{configuration.path} has no part {part!r}; there are {', '.join([*configuration.feeders, 'web'])}")
