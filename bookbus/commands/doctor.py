"""`doctor`: what would keep the bus from working well, and what to change."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bookbus._extras import advice
from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    Prefix,
    RedisUrl,
    add_kept_password,
    exchange_id,
    fail,
    split_names,
)
from bookbus.commands.config import ConfigFile, overridden
from bookbus.configuration import Configuration, ConfigurationError, exchange_of_feeder, find, load
from bookbus.doctor import (
    Finding,
    ask_exchange,
    ask_machine,
    ask_server,
    judge_exchange,
    judge_machine,
    judge_server,
    no_server,
)
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_url import masked, redacted, secrets_of
from bookbus.supervisor import state_directory

ADVICE = 2
"""Exit code if nothing is wrong and something could be better."""


def doctor(
    exchange: Annotated[
        str,
        typer.Option(
            envvar="BOOKBUS_EXCHANGES",
            help="Exchange ids to reach; by default those of the file, or none.",
            callback=exchange_id,
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per finding.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    file: ConfigFile = None,
) -> None:
    """Look at the server and its settings, the clocks, the exchanges and this machine; say what to change.

    The server is the one of --redis, else of bookbus.toml. It changes nothing. Exit code 0 if all is right, 1 if
    something is wrong, 2 if something could be better.

    \b
      bookbus doctor
      bookbus doctor --exchange binance,upbit
      bookbus doctor --redis redis://feeder@10.0.0.5:6379/0
    """
    configuration, found = _configuration(file)
    if configuration is not None and redis == REDIS_DEFAULT and configuration.redis.url:
        redis = _url_of(configuration)
    if configuration is not None and prefix == PREFIX_DEFAULT and configuration.redis.prefix:
        prefix = configuration.redis.prefix
    found += _server(redis, prefix)
    for name, rest_url, ws_url in _exchanges(configuration, split_names(exchange), found):
        found += judge_exchange(ask_exchange(name, rest_url, ws_url))
    found += judge_machine(ask_machine(_directories(configuration)))
    for finding in found:
        typer.echo(msgspec.json.encode(finding) if json else _text(finding))
    levels = {finding.level for finding in found}
    if not json:
        count = sum(finding.level == "wrong" for finding in found)
        typer.echo(f"{count} wrong, {sum(finding.level == 'advice' for finding in found)} to improve")
    if levels != {"ok"}:
        raise typer.Exit(1 if "wrong" in levels else ADVICE)


def _configuration(file: Path | None) -> tuple[Configuration | None, list[Finding]]:
    """The file, if there is one, and what is to be said of it."""
    path = file or find(os.environ)
    if path is None:
        return None, []
    try:
        configuration = load(path)
    except ConfigurationError as error:
        remedy = "correct it: bookbus config check"
        return None, [Finding(level="wrong", subject="configuration", text=str(error), remedy=remedy)]
    found = [Finding(level="ok", subject="configuration", text=f"{configuration.path} is right")]
    found += [
        Finding(
            level="advice",
            subject="configuration",
            text=f"{name} in the environment wins over the file",
            remedy=f"unset {name}, unless that is meant",
        )
        for name in overridden(configuration)
    ]
    return configuration, found


def _url_of(configuration: Configuration) -> str:
    """The address of the file with the password that is kept for it."""
    path = configuration.common().get("BOOKBUS_REDIS_PASSWORD_FILE")
    if path and not os.environ.get("BOOKBUS_REDIS_PASSWORD") and not os.environ.get("BOOKBUS_REDIS_PASSWORD_FILE"):
        os.environ["BOOKBUS_REDIS_PASSWORD_FILE"] = path
    return add_kept_password(configuration.redis.url) or REDIS_DEFAULT


def _server(url: str, prefix: str) -> list[Finding]:
    try:
        return judge_server(asyncio.run(ask_server(url, prefix)))
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        return [no_server(masked(url), redacted(error, secrets_of(url)))]


def _exchanges(
    configuration: Configuration | None, named: tuple[str, ...], found: list[Finding]
) -> list[tuple[str, str, str]]:
    """Id, REST and WebSocket address of each exchange to reach; adds findings for those that cannot be known."""
    wanted: set[tuple[str, str | None, str | None]] = {(name, None, None) for name in named}
    if not named and configuration is not None:
        wanted = {
            (exchange_of_feeder(name, section), section.rest_url, section.ws_url)
            for name, section in configuration.feeders.items()
        }
    addresses = []
    for name, rest_url, ws_url in sorted(wanted, key=str):
        try:
            # Needs the `feeder` extra, which a machine with readers alone has not.
            from bookbus.feeders.venue import venue_of

            venue = venue_of(name)
        except SymbolError as error:
            found.append(Finding(level="wrong", subject="exchange", text=str(error), remedy="name one that is known"))
        except ImportError as error:
            text = advice("a feeder", error, "feeder")
            found.append(Finding(level="wrong", subject=f"exchange {name}", text=text, remedy="install it"))
        else:
            addresses.append((name, rest_url or venue.rest_url, ws_url or venue.ws_url))
    return addresses


def _directories(configuration: Configuration | None) -> list[Path]:
    """Where feeders and `up` write: the cache of lists of markets, and what is beside the file."""
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        found = [(Path(cache) if cache else Path.home() / ".cache") / "bookbus"]
    except RuntimeError:
        found = []  # A user without a home: a feeder takes the directory for temporary files.
    return found if configuration is None else [*found, state_directory(configuration)]


def _text(finding: Finding) -> str:
    line = f"{finding.level:<7} {finding.subject}: {finding.text}"
    return f"{line}\n        -> {finding.remedy}" if finding.remedy else line
