"""`bookbus.toml`: what it may say, what is refused, and that it is the same as options and environment."""

from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from bookbus.commands.config import EXAMPLE
from bookbus.configuration import (
    Configuration,
    ConfigurationError,
    FeederSection,
    PageSection,
    find,
    load,
    parse,
    variable_of,
)
from bookbus.feeders.commands.run import run
from tests.support.reference import commands, rows_of

WHOLE = """
log_level = "warning"

[redis]
url = "redis://feeder@h:6380/2"
password_file = "secrets/password"
prefix = "p"

[feeders.binance]
symbols = ["BTC", "ETH/USDT", "btcusdt"]
depth = 50
topics = "book, trades"
lines = 2

[feeders.binance-partial]
mode = "partial"
symbols = "top:50"
log_level = "debug"

[feeders.won]
exchange = "UPBIT"
audit_interval = 0
record = "won.jsonl.gz"

[programs.bot]
command = ["paper", "--l2-source", "redis"]
"""


def parsed(text: str) -> Configuration:
    return parse(text, Path("/etc/bookbus/bookbus.toml"))


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    return str(caught.value).removeprefix("/etc/bookbus/bookbus.toml: ")


def test_feeder_has_the_variables_of_its_section_and_the_common_ones() -> None:
    assert parsed(WHOLE).of_feeder("binance") == {
        "BOOKBUS_REDIS_URL": "redis://feeder@h:6380/2",
        "BOOKBUS_REDIS_PASSWORD_FILE": "/etc/bookbus/secrets/password",
        "BOOKBUS_PREFIX": "p",
        "BOOKBUS_LOG_LEVEL": "warning",
        "BOOKBUS_EXCHANGE": "binance",
        "BOOKBUS_FEEDER_ID": "binance",
        "BOOKBUS_SYMBOLS": "BTC,ETH/USDT,btcusdt",
        "BOOKBUS_DEPTH": "50",
        "BOOKBUS_TOPICS": "book, trades",
        "BOOKBUS_LINES": "2",
    }


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("binance-partial", "BOOKBUS_EXCHANGE", "binance"),
        ("binance-partial", "BOOKBUS_LOG_LEVEL", "debug"),
        ("binance-partial", "BOOKBUS_MODE", "partial"),
        ("won", "BOOKBUS_EXCHANGE", "upbit"),
        ("won", "BOOKBUS_AUDIT_INTERVAL", "0.0"),
        ("won", "BOOKBUS_RECORD", "/etc/bookbus/won.jsonl.gz"),
    ],
)
def test_value_of_a_feeder(name: str, variable: str, value: str) -> None:
    assert parsed(WHOLE).of_feeder(name)[variable] == value


def test_file_can_say_what_every_option_of_a_feeder_says() -> None:
    options = {row.variable for row in rows_of(commands()["feeders run"])}
    fields = {variable_of(field) for field in FeederSection.__struct_fields__}

    assert options - fields == {"BOOKBUS_REDIS_URL", "BOOKBUS_PREFIX", "BOOKBUS_FEEDER_ID"}
    assert fields <= options


def test_limits_of_numbers_are_those_of_the_options() -> None:
    found = {
        name: (option.min, option.max)
        for name, hint in get_type_hints(run, include_extras=True).items()
        for option in getattr(hint, "__metadata__", ())
    }
    limits = {name: limit for name, limit in found.items() if limit != (None, None)}
    assert {"depth", "lines", "snapshot_limit", "audit_interval"} <= set(limits)
    for name, (least, most) in limits.items():
        beyond = [value for value in (least - 1 if least is not None else None, most and most + 1) if value is not None]
        for value in beyond:
            assert f"feeders.binance.{name}: expected" in refusal(f"[feeders.binance]\n{name} = {value}")
        assert parsed(f"[feeders.binance]\n{name} = {least}").feeders["binance"]


@pytest.mark.parametrize("word", ["web", "serve"])
def test_page_variables_are_those_of_its_options(word: str) -> None:
    command = commands().get(f"consumers {word}")
    if command is None:
        pytest.skip("this version has no page")
    variables = parsed(f'[{word}]\nhost = "h"\nport = 1\nexchanges = ["upbit"]').of_page(word)

    assert variables.keys() <= {row.variable for row in rows_of(command)}


def test_every_field_of_a_page_reaches_its_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    text = '[web]\nhost = "10.0.0.1"\nport = 8300\nexchanges = ["upbit", "binance"]\ntoken_file = "token"'

    variables = parse(text, tmp_path / "bookbus.toml").of_page("web")

    assert sorted(variables.values()) == ["10.0.0.1", "8300", "secret", "upbit,binance"]
    assert len(variables) == len(PageSection.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a =", "Invalid value"),
        ("feeder = 1", "feeder: no such setting; did you mean feeders?"),
        ("feeders = 1", "feeders: write one table for each, like [feeders.binance]"),
        ("[feeders]\nbinance = 1", "feeders.binance: write a table, [feeders.binance]"),
        ("[feeders.binance]\ndepht = 3", "feeders.binance.depht: no such setting; did you mean depth?"),
        ("[feeders.binance]\ndepth = 0", "feeders.binance.depth: expected `int` >= 1"),
        ('[feeders.binance]\ndepth = "20"', "feeders.binance.depth: expected `int`, got `str`"),
        ("[feeders.binance]\nlines = 5", "feeders.binance.lines: expected `int` <= 4"),
        ('[feeders.binance]\nmode = "fast"', "feeders.binance.mode: invalid enum value 'fast'"),
        ('[feeders.binance]\ntopics = ["book", "bok"]', "feeders.binance.topics: unknown bok: use any of book, quote"),
        ('[feeders.binance]\nsymbols = ["BTC USDT"]', "feeders.binance.symbols: 'BTC USDT' is no symbol of binance"),
        ("[feeders.binance]\nsymbols = []", "feeders.binance.symbols: no symbol given"),
        (
            "[feeders.binanc]",
            "feeders.binanc.exchange: unknown exchange 'binanc'; known: ",
        ),
        ('[feeders.a]\nexchange = "kraken"', "feeders.a.exchange: unknown exchange 'kraken'"),
        ('[feeders."binance 1"]', "feeders.binance 1: the name of a feeder has no space, comma or slash"),
        ('[feeders.binance]\nlines = 2\nrecord = "f"', "feeders.binance.record: a recording has the frames of one"),
        ('[redis]\nurl = "http://h"', "redis.url: not a usable Redis URL"),
        ('[redis]\nprefix = "a:b"', "redis.prefix: prefix 'a:b'"),
        ('[redis]\npassword = "x"', "redis.password: no such setting; did you mean password_file?"),
        ("[programs.bot]", "programs.bot: object missing required field `command`"),
        ("[programs.bot]\ncommand = []", "programs.bot.command: expected `array` of length >= 1"),
        ('[feeders.binance]\n[programs.binance]\ncommand = ["demo"]', "programs.binance: another part of the file has"),
        ("[web]\nport = 70000", "web.port: expected `int` <= 65535"),
        ('[web]\ntoken_file = "/nothing/here"', "web.token_file: cannot read /nothing/here: No such file"),
        ('log_level = "loud"', "log_level: use debug, info, warning or error"),
    ],
)
def test_mistake_is_named_with_its_place(text: str, reason: str) -> None:
    assert refusal(text).startswith(reason)
    assert "\n" not in refusal(text)


def test_secret_in_an_address_is_not_repeated() -> None:
    assert "hunter2" not in refusal('[redis]\nurl = "nonsense://:hunter2@h/0"')


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*/none.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bookbus.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="no text"):
        load(tmp_path / "bookbus.toml")


@pytest.mark.parametrize(
    ("feeder_id", "exchange", "found"),
    [
        ("won", "", "won"),
        ("other", "", None),
        ("other", "upbit", None),
        ("", "UPBIT", "won"),
        ("", "bybit", None),
        ("binance-partial", "binance", "binance-partial"),
    ],
)
def test_section_of_a_feeder_is_found_by_its_name_or_its_exchange(
    feeder_id: str, exchange: str, found: str | None
) -> None:
    assert parsed(WHOLE).feeder_for(feeder_id, exchange) == found


def test_feeder_that_could_be_several_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has the feeders binance, binance-partial: name one with --feeder-id"):
        parsed(WHOLE).feeder_for("", "binance")


def test_only_feeder_of_a_file_needs_no_name() -> None:
    assert parsed("[feeders.upbit]").feeder_for("", "") == "upbit"
    assert parsed("").feeder_for("", "") is None


def test_environment_names_the_file_else_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert find({}) is None
    assert find({"BOOKBUS_CONFIG": "/x.toml"}) == Path("/x.toml")
    (tmp_path / "bookbus.toml").write_text("")
    assert find({}) == Path("bookbus.toml")


def test_example_is_right() -> None:
    configuration = parsed(EXAMPLE)

    assert list(configuration.feeders) == ["binance", "upbit"]
    assert msgspec.structs.asdict(configuration.feeders["binance"])["lines"] == 2
