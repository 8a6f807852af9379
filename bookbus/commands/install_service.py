"""`install-service`: units of systemd for what bookbus.toml names."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import fail
from bookbus.commands.config import ConfigFile, load_or_fail
from bookbus.units import default_directory, names_of, units_of, write


def install_service(
    user: Annotated[bool, typer.Option("--user", help="For this user's systemd instead of the machine's.")] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Where to write; by default where systemd looks for units.")
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print the units and write nothing.")] = False,
    file: ConfigFile = None,
) -> None:
    """Write units of systemd for the feeders, page and interface of bookbus.toml, and print how to start them.

    A feeder is bookbus-feeder@NAME. It says when it is ready, and that it makes progress: systemd restarts one whose
    loop or whose writes to the server stall. An outage of the exchange or of the server is no stall.

    \b
      bookbus install-service --config /etc/bookbus/bookbus.toml
      bookbus install-service --user
      bookbus install-service --print
    """
    configuration = load_or_fail(file)
    units = units_of(configuration, sys.executable, user=user)
    if not units:
        fail(f"{configuration.path} names no feeder and no page: add [feeders.binance]")
    if show:
        typer.echo("\n".join(f"# {name}\n{text}" for name, text in units.items()), nl=False)
        return
    where = directory or default_directory(user=user, home=Path.home(), config_home=os.environ.get("XDG_CONFIG_HOME"))
    try:
        written = write(units, where)
    except OSError as error:
        hint = "as root, or with --user" if isinstance(error, PermissionError) else "another --directory"
        fail(f"cannot write to {where}: {(error.strerror or str(error)).lower()}; try {hint}")
    for path in written:
        typer.echo(f"wrote {path}")
    if not written:
        typer.echo(f"the units in {where} are up to date")
    systemctl = "systemctl --user" if user else "systemctl"
    typer.echo(f"start them: {systemctl} daemon-reload && {systemctl} enable --now {' '.join(names_of(configuration))}")
    if configuration.programs:
        typer.echo(f"without a unit: {', '.join(configuration.programs)} (programs run under `bookbus up`)")
