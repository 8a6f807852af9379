"""Units of systemd for what bookbus.toml names."""

import os
from pathlib import Path

from bookbus.configuration import VARIABLE, Configuration

WATCHDOG = 30
"""Seconds without progress of a feeder after which systemd restarts it."""

FEEDER = "bookbus-feeder@.service"

# Beside these, a feeder needs only the network and its cache directory.
_HARDENING = """\
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
"""

# The manager of a user may not do the rest.
_USER_HARDENING = """\
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""

_UNIT = """\
[Unit]
Description={description}
{network}StartLimitIntervalSec=0

[Service]
Type={kind}
{watchdog}ExecStart={command}
{environment}Restart=always
RestartSec=2
TimeoutStopSec=20
LimitNOFILE=65536
CacheDirectory=bookbus
{hardening}
[Install]
WantedBy={target}
"""


def units_of(configuration: Configuration, python: str, *, user: bool = False) -> dict[str, str]:
    """The text of each unit by its file name; `python` is the interpreter that has bookbus.

    Feeders are instances of one template. `user` is for the manager of a user instead of the system's.
    """
    units = {}
    if configuration.feeders:
        units[FEEDER] = _unit(
            configuration,
            python,
            user,
            "bookbus feeder %i",
            "feed --feeder-id %i",
            "notify",
            f"WatchdogSec={WATCHDOG}\n",
        )
    for word, what in (("serve", "interface"), ("web", "page")):
        if getattr(configuration, word) is not None:
            units[f"bookbus-{word}.service"] = _unit(configuration, python, user, f"bookbus {what}", word, "exec", "")
    return units


def names_of(configuration: Configuration) -> list[str]:
    """What `systemctl enable --now` takes: an instance for each feeder, the page and the interface."""
    names = [f"bookbus-feeder@{name}.service" for name in configuration.feeders]
    return names + [f"bookbus-{word}.service" for word in ("serve", "web") if getattr(configuration, word) is not None]


def default_directory(*, user: bool, home: Path, config_home: str | None) -> Path:
    """Where the manager looks for units that an administrator or a user adds."""
    if not user:
        return Path("/etc/systemd/system")
    return (Path(config_home) if config_home else home / ".config") / "systemd" / "user"


def _unit(
    configuration: Configuration, python: str, user: bool, description: str, words: str, kind: str, watchdog: str
) -> str:
    environment = [f"{VARIABLE}={configuration.path}", "XDG_CACHE_HOME=%C"]
    lines = ""
    password = configuration.common().get("BOOKBUS_REDIS_PASSWORD_FILE")
    if password and not user:
        # The service has a user of its own, who may not read the file; systemd hands it over.
        lines = f"LoadCredential=redis-password:{_escaped(password)}\n"
        environment.append("BOOKBUS_REDIS_PASSWORD_FILE=%d/redis-password")
    lines += "".join(f'Environment="{_escaped(one, keep="%C %d")}"\n' for one in environment)
    network = "" if user else "Wants=network-online.target\nAfter=network-online.target\n"
    in_home = any(Path(path).parts[1:2] in (("home",), ("root",)) for path in (python, configuration.path))
    return _UNIT.format(
        description=description,
        network=network,
        kind=kind,
        watchdog=watchdog,
        command=f"{_word(python)} -m bookbus {words}",
        environment=lines,
        hardening=_USER_HARDENING if user else _HARDENING.format(home="read-only" if in_home else "yes"),
        target="default.target" if user else "multi-user.target",
    )


def _word(path: str) -> str:
    return f'"{_escaped(path)}"' if " " in path else _escaped(path)


def _escaped(text: str, keep: str = "") -> str:
    """With what has a meaning in units written so that it has none, but for these specifiers."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    for specifier in keep.split():
        text = text.replace(f"%{specifier}", specifier)
    return text


def write(units: dict[str, str], directory: Path) -> list[Path]:
    """Write the units that are not there yet or differ. Returns their paths; raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in units.items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            unfinished = path.with_name(f".{name}.new")
            unfinished.write_text(text)
            os.replace(unfinished, path)
            written.append(path)
    return written
