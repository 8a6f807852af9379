"""`health`: whether a feeder on this host is alive, its books and its lines."""

from typing import Annotated

import typer

from bookbus.command_line import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl
from bookbus.feeders.commands.health_check import HealthQuestion, check


def health(
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    host: Annotated[str, typer.Option(envvar="BOOKBUS_HEALTH_HOST", help="Host name; by default this host's.")] = "",
    exchange: Annotated[
        str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange ids: a feeder of each must be alive.")
    ] = "",
    feeder_name: Annotated[
        str, typer.Option(envvar="BOOKBUS_FEEDER_ID", help="Names of feeders (`run --feeder-id`): each must be alive.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 2 unless all books are live and taken and no line is silent.")
    ] = False,
) -> None:
    """Exit code 0 if a feeder on this host sends heartbeats, else 1.

    It waits until it has seen a new heartbeat of every feeder, which takes about a second and at most 2.5 s.

    With --exchange and --feeder-name only such feeders count, and one of each that is named must be alive.
    With --strict it must also be healthy: every book live and not refused because of another feeder, and no line silent
    if there are several; else the exit code is 2. When you restart a pair of feeders, wait for this before you restart
    the second one.

    \b
      python -m feeders health
      python -m feeders health --strict
      python -m feeders health --exchange binance,upbit
      python -m feeders health --feeder-name binance-1 --strict
      python -m feeders health --host feeder-1
    """
    outcome = check(HealthQuestion(redis, prefix, host, exchange, feeder_name, strict))
    for text, to_stderr in ((outcome.output, False), (outcome.error, True)):
        if text:
            typer.echo(text, err=to_stderr)
    if outcome.code:
        raise typer.Exit(outcome.code)
