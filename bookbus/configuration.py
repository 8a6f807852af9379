"""`bookbus.toml`: what runs on a machine, in one file. A value in it is the same as the environment variable of that
option: an option wins over the variable, the variable over the file, the file over the option's default.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from bookbus.schemas.instruments import EXCHANGES, SymbolError, exchange_of, guess_instrument
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames
from bookbus.schemas.redis_url import DEFAULT_URL, parse_redis_url

FILE_NAME = "bookbus.toml"
VARIABLE = "BOOKBUS_CONFIG"
"""The environment variable with the path of the file."""

_RULES = ("all:", "top:")
_TOPICS = ("book", "quote", "trades")

Names = list[str] | str
"""Several names: a list, or text with commas."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigurationError(ValueError):
    """The file cannot be read or says something wrong; the message names the file and the place."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field that is None is not in the file."""


class RedisSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[redis]`: the server, the same for everything in the file."""

    url: str | None = None
    password_file: str | None = None
    prefix: str | None = None


class FeederSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[feeders.NAME]`: one feeder; the name is its `--feeder-id`, and its exchange if none is given."""

    exchange: str | None = None
    symbols: Names | None = None
    mode: Literal["diff", "partial"] | None = None
    depth: Annotated[int, msgspec.Meta(ge=1, le=5000)] | None = None
    topics: Names | None = None
    lines: Annotated[int, msgspec.Meta(ge=1, le=4)] | None = None
    shard: str | None = None
    snapshot_limit: Annotated[int, msgspec.Meta(ge=100, le=5000)] | None = None
    audit_interval: Annotated[float, msgspec.Meta(ge=0)] | None = None
    record: str | None = None
    ws_url: str | None = None
    rest_url: str | None = None
    network: str | None = None
    trading_interval: Annotated[float, msgspec.Meta(ge=0)] | None = None
    log_level: LogLevel | None = None


class PageSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[web]`, the page, and `[serve]`, the interface alone."""

    host: str | None = None
    port: Port | None = None
    exchanges: Names | None = None
    token_file: str | None = None


class ProgramSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[programs.NAME]`: any other command of bookbus, as its words; it is not started again once it ended well."""

    command: Annotated[list[str], msgspec.Meta(min_length=1)]


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file at `path`. Paths in it are relative to its directory."""

    path: Path
    redis: RedisSection
    feeders: Mapping[str, FeederSection]
    programs: Mapping[str, ProgramSection]
    web: PageSection | None
    serve: PageSection | None
    log_level: LogLevel | None

    @property
    def directory(self) -> Path:
        return self.path.parent

    def common(self) -> dict[str, str]:
        """The environment variables that mean what the file says to every command."""
        return _variables(
            {
                "BOOKBUS_REDIS_URL": self.redis.url,
                "BOOKBUS_REDIS_PASSWORD_FILE": self._file(self.redis.password_file),
                "BOOKBUS_PREFIX": self.redis.prefix,
                "BOOKBUS_LOG_LEVEL": self.log_level,
            }
        )

    def of_feeder(self, name: str) -> dict[str, str]:
        """The variables of one feeder."""
        section = self.feeders[name]
        fields = {field: getattr(section, field) for field in section.__struct_fields__}
        fields |= {
            "exchange": exchange_of_feeder(name, section),
            "feeder_id": name,
            "record": self._file(section.record),
        }
        return self.common() | _variables({variable_of(field): value for field, value in fields.items()})

    def of_page(self, word: str) -> dict[str, str]:
        """The variables of `web` or `serve`. Raises ConfigurationError if the file of the token cannot be read."""
        section = self.web if word == "web" else self.serve
        if section is None:
            return self.common()
        return self.common() | _variables(
            {
                "BOOKBUS_WEB_HOST": section.host,
                "BOOKBUS_WEB_PORT": section.port,
                "BOOKBUS_EXCHANGES": section.exchanges,
                "BOOKBUS_WEB_TOKEN": self._secret(section.token_file, f"{word}.token_file"),
            }
        )

    def feeder_for(self, feeder_id: str, exchange: str) -> str | None:
        """The section that a feeder with this id or exchange has; either may be empty. None if it has none.

        Raises ConfigurationError if several are possible.
        """
        if feeder_id:
            return feeder_id if feeder_id in self.feeders else None
        found = [
            name
            for name, section in self.feeders.items()
            if not exchange or exchange_of_feeder(name, section) == exchange.strip().lower()
        ]
        if len(found) > 1:
            raise ConfigurationError(f"{self.path} has the feeders {', '.join(found)}: name one with --feeder-id")
        return found[0] if found else None

    def _file(self, path: str | None) -> str | None:
        return None if path is None else str(self.directory / Path(path).expanduser())

    def _secret(self, path: str | None, place: str) -> str | None:
        if path is None:
            return None
        try:
            return Path(self._file(path) or "").read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise ConfigurationError(f"{self.path}: {place}: cannot read {self._file(path)}: {reason}") from None


def variable_of(field: str) -> str:
    """The environment variable of a field of a feeder."""
    return f"BOOKBUS_{field.upper()}"


def exchange_of_feeder(name: str, section: FeederSection) -> str:
    """The id of its exchange: as given, else the feeder's name up to the first dash."""
    return (section.exchange or name.partition("-")[0]).strip().lower()


def find(environ: Mapping[str, str]) -> Path | None:
    """The file that the environment names, else `bookbus.toml` in the current directory if there is one."""
    if named := environ.get(VARIABLE):
        return Path(named)
    return Path(FILE_NAME) if Path(FILE_NAME).is_file() else None


def load(path: Path) -> Configuration:
    """Read and check a file. Raises ConfigurationError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'no text'}") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Configuration:
    """The content of a file. Raises ConfigurationError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    known = ("redis", "feeders", "programs", "web", "serve", "log_level")
    for name in content:
        _require_known(path, name, known, "")
    log_level = content.get("log_level")
    if log_level not in (None, "debug", "info", "warning", "error"):
        raise ConfigurationError(f"{path}: log_level: use debug, info, warning or error")
    configuration = Configuration(
        path=path.absolute(),
        redis=_section(path, "redis", content.get("redis", {}), RedisSection),
        feeders=_sections(path, "feeders", content.get("feeders", {}), FeederSection),
        programs=_sections(path, "programs", content.get("programs", {}), ProgramSection),
        web=_section(path, "web", content["web"], PageSection) if "web" in content else None,
        serve=_section(path, "serve", content["serve"], PageSection) if "serve" in content else None,
        log_level=log_level,
    )
    _check(configuration, path)
    return configuration


def _check(configuration: Configuration, path: Path) -> None:
    """What a type does not say: names of exchanges, symbols, topics, the address, files of secrets."""

    def refuse(place: str, reason: object) -> ConfigurationError:
        return ConfigurationError(f"{path}: {place}: {reason}")

    try:
        parse_redis_url(configuration.redis.url or DEFAULT_URL)
    except ValueError as error:
        raise refuse("redis.url", error) from None
    try:
        RedisNames(configuration.redis.prefix or DEFAULT_PREFIX)
    except ValueError as error:
        raise refuse("redis.prefix", error) from None
    for name, section in configuration.feeders.items():
        place = f"feeders.{name}"
        if not name.isprintable() or not name or "," in name or "/" in name or " " in name:
            raise refuse(place, "the name of a feeder has no space, comma or slash")
        try:
            exchange = exchange_of(exchange_of_feeder(name, section))
        except SymbolError as error:
            near = get_close_matches(exchange_of_feeder(name, section), EXCHANGES, n=1)
            raise refuse(f"{place}.exchange", f"{error}{_meant(near)}") from None
        for symbol in _listed(section.symbols):
            if not symbol.startswith(_RULES):
                try:
                    guess_instrument(exchange, symbol)
                except SymbolError as error:
                    raise refuse(f"{place}.symbols", error) from None
        if section.symbols is not None and not _listed(section.symbols):
            raise refuse(f"{place}.symbols", "no symbol given")
        if unknown := [topic for topic in _listed(section.topics) if topic not in _TOPICS]:
            raise refuse(f"{place}.topics", f"unknown {', '.join(unknown)}: use any of {', '.join(_TOPICS)}")
        if section.record is not None and (section.lines or 1) > 1:
            raise refuse(f"{place}.record", "a recording has the frames of one connection: use it with lines = 1")
    clashing = [name for name in configuration.programs if name in configuration.feeders or name in ("web", "serve")]
    if clashing:
        raise refuse(f"programs.{clashing[0]}", "another part of the file has this name")
    for name in configuration.programs:
        if "/" in name or not name:
            raise refuse(f"programs.{name}", "the name of a program has no slash")
    for word in ("web", "serve"):
        section_of_page = getattr(configuration, word)
        if section_of_page is not None:
            configuration.of_page(word)


_T = TypeVar("_T", bound=_Section)


def _sections(path: Path, place: str, tables: Any, kind: type[_T]) -> dict[str, _T]:
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{path}: {place}: write one table for each, like [{place}.binance]")
    return {name: _section(path, f"{place}.{name}", table, kind) for name, table in tables.items()}


def _section(path: Path, place: str, table: Any, kind: type[_T]) -> _T:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {place}: write a table, [{place}]")
    for name in table:
        _require_known(path, name, kind.__struct_fields__, f"{place}.")
    for field in msgspec.structs.fields(kind):
        if field.name in table:
            try:
                msgspec.convert(table[field.name], field.type)
            except msgspec.ValidationError as error:
                raise ConfigurationError(f"{path}: {place}.{field.name}: {_plain(error)}") from None
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {place}: {_plain(error)}") from None


def _require_known(path: Path, name: str, known: tuple[str, ...], place: str) -> None:
    if name not in known:
        meant = _meant(get_close_matches(name, known, n=1)) or f"; there are {', '.join(known)}"
        raise ConfigurationError(f"{path}: {place}{name}: no such setting{meant}")


def _meant(near: list[str]) -> str:
    return f"; did you mean {near[0]}?" if near else ""


def _plain(error: msgspec.ValidationError) -> str:
    text = str(error).partition(" - at ")[0].replace(" | null", "")
    return text[:1].lower() + text[1:]


def _listed(names: Names | None) -> list[str]:
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names or []) if name.strip()]


def _variables(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None
    }
