"""Every option of a command reaches its own setting and no other: one table for each command."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app as make_consumers
from bookbus.feeders.__main__ import make_app as make_feeders

Flat = dict[str, object]
Table = Mapping[str, tuple[str, Mapping[str, object]]]
"""By option: the value on the command line, and what differs from the settings without it."""


def flat(value: object, path: str = "") -> Flat:
    """The fields of settings and of what they contain, by their dotted path."""
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif is_dataclass(value):
        names = tuple(each.name for each in fields(value))
    elif isinstance(value, dict):
        return {one: each for name, inner in value.items() for one, each in flat(inner, f"{path}.{name}").items()}
    else:
        return {path.removeprefix("."): value}
    return {one: each for name in names for one, each in flat(getattr(value, name), f"{path}.{name}").items()}


def changed(before: Flat, after: Flat) -> Flat:
    return {path: value for path, value in after.items() if path not in before or before[path] != value}


CONSUMERS_RUN: Table = {
    "--l2-source": ("redis", {"settings.source": "redis"}),
    "--symbols": ("ETH,SOL", {"settings.symbols": ("ETH", "SOL")}),
    "--smoke": ("", {"settings.duration": 300.0}),
    "--duration-seconds": ("61", {"settings.duration": 61.0}),
    "--trade-interval": ("7.5", {"settings.trade_interval": 7.5}),
    "--max-hold": ("33", {"settings.max_hold": 33.0}),
    "--order-quantity": ("0.25", {"settings.order_quantity": 0.25}),
    "--order-notional": ("77", {"settings.order_notional": 77.0}),
    "--fill-model": ("simple", {"settings.fill_model": "simple"}),
    "--calibrated-mode": ("expected", {"settings.calibrated_mode": "expected"}),
    "--calibration-path": ("table.json", {"settings.calibration_path": "table.json"}),
    "--fillmodel-mode": ("strict", {"settings.fillmodel_mode": "strict"}),
    "--min-fill-probability": ("0.45", {"settings.min_fill_probability": 0.45}),
    "--entry-bps-mode": ("cycle", {"settings.entry.mode": "cycle"}),
    "--entry-bps-min": ("9", {"settings.entry.minimum": 9.0, "settings.entry.maximum": 9.0}),
    "--entry-bps-max": ("11", {"settings.entry.maximum": 11.0}),
    "--entry-bps-seed": ("5", {"settings.entry.seed": 5, "sources.seed": 5}),
    "--entry-bps-zone-weights": ("1,2,3", {"settings.entry.weights": (1.0, 2.0, 3.0)}),
    "--tp-bps": ("13", {"settings.entry.tp_bps": 13.0}),
    "--sl-bps": ("14", {"settings.sl_bps": 14.0}),
    "--fees": ("binance=7.5", {"settings.fees.binance": 7.5, "sources.fees.binance": 7.5}),
    "--cash": ("5001", {"settings.cash": 5001.0}),
    "--inventory-notional": ("502", {"settings.inventory_notional": 502.0}),
    "--max-notional": ("503", {"settings.max_notional": 503.0}),
    "--max-daily-loss": ("504", {"settings.max_daily_loss": 504.0}),
    "--max-open-trades": ("6", {"settings.max_open_trades": 6}),
    "--max-age": ("2.5", {"settings.max_age": 2.5, "sources.max_age": 2.5}),
    "--depth": ("50", {"settings.depth": 50}),
    "--session-tag": ("tag", {"settings.session_tag": "tag"}),
    "--output-dir": ("elsewhere", {"directory": "elsewhere"}),
    "--exchange": ("bybit", {"sources.exchange": "bybit"}),
    "--binance-ws-url": ("ws://bw", {"sources.endpoints.binance.ws_url": "ws://bw"}),
    "--binance-rest-url": ("http://br", {"sources.endpoints.binance.rest_url": "http://br"}),
    "--upbit-ws-url": ("ws://uw", {"sources.endpoints.upbit.ws_url": "ws://uw"}),
    "--upbit-rest-url": ("http://ur", {"sources.endpoints.upbit.rest_url": "http://ur"}),
    "--redis": ("redis://there:1/2", {"sources.redis_url": "redis://there:1/2"}),
    "--prefix": ("other", {"sources.prefix": "other"}),
    "--log-level": ("error", {"level": "error"}),
}
FEEDER: Table = {
    "--exchange": ("bybit", {"settings.exchange": "bybit"}),
    "--symbols": ("ETH,top:5", {"settings.selection.names": ("ETH",), "settings.selection.top": ((5, None),)}),
    "--mode": ("partial", {"settings.options.mode": "partial"}),
    "--depth": ("10", {"settings.options.depth": 10}),
    "--topics": ("quote", {"settings.options.topics": frozenset({"quote"})}),
    "--ws-url": ("ws://w", {"settings.ws_url": "ws://w"}),
    "--rest-url": ("http://r", {"settings.rest_url": "http://r"}),
    "--log-level": ("error", {"level": "error"}),
}
FEEDERS_RUN: Table = {
    **FEEDER,
    "--redis": ("redis://there:1/2", {"settings.redis_url": "redis://there:1/2"}),
    "--prefix": ("other", {"settings.prefix": "other"}),
    "--feeder-id": ("mine", {"settings.feeder_name": "mine"}),
    "--snapshot-limit": ("700", {"settings.options.snapshot_limit": 700}),
    "--shard": ("2/5", {"settings.selection.shard.number": 2, "settings.selection.shard.count": 5}),
    "--lines": ("2", {"settings.connection.lines": 2}),
    "--network": ("test", {"settings.network": "test"}),
    "--audit-interval": ("9", {"settings.audit_interval": 9.0}),
    "--trading-interval": ("8", {"settings.trading_interval": 8.0}),
    "--record": ("file.jsonl", {"settings.record_to": "file.jsonl"}),
}
FEEDERS_RECORD: Table = {
    **FEEDER,
    "--out": ("elsewhere.jsonl", {"settings.record_to": "elsewhere.jsonl", "out": "elsewhere.jsonl"}),
    "--seconds": ("33", {"seconds": 33.0}),
    "--exchange": (
        "bybit",
        # By default all topics of the exchange: Bybit has no quotes.
        {"settings.exchange": "bybit", "to": "bybit", "settings.options.topics": frozenset({"book", "trades"})},
    ),
}
FEEDERS_REPLAY: Table = {
    "--speed": ("5", {"speed": 5.0}),
    "--symbols": ("ETH,SOL", {"symbols": ("ETH", "SOL")}),
    "--depth": ("7", {"options.depth": 7}),
    "--topics": ("quote", {"options.topics": frozenset({"quote"})}),
    "--redis": ("redis://there:1/0", {"url": "redis://there:1/0"}),
    "--prefix": ("other", {"names.prefix": "other"}),
    "--log-level": ("error", {"level": "error"}),
}
ARBITRAGE: Table = {
    "--symbols": ("SOL,XRP", {"symbols": ("SOL", "XRP")}),
    "--exchanges": ("upbit,bybit", {"exchanges": ("upbit", "bybit")}),
    "--quote": ("USDC", {"quote": "USDC"}),
    "--fx": ("bybit:USDC-KRW", {"fx": "bybit:USDC-KRW"}),
    "--fees": ("binance=7.5", {"fees.binance": 7.5}),
    "--max-skew": ("0.7", {"max_skew": 0.7}),
    "--max-age": ("0.8", {"max_age": 0.8}),
    "--fx-max-age": ("0.9", {"fx_max_age": 0.9}),
    "--redis": ("redis://there:1/2", {"url": "redis://there:1/2"}),
    "--prefix": ("other", {"prefix": "other"}),
    "--log-level": ("info", {"level": "info"}),
}
LIST: Table = {
    "--redis": ("redis://there:1/2", {"url": "redis://there:1/2"}),
    "--prefix": ("other", {"names.prefix": "other"}),
}
READER: Table = {
    "--exchange": ("upbit", {"exchange": "upbit"}),
    "--redis": ("redis://there:1/2", {"url": "redis://there:1/2"}),
    "--prefix": ("other", {"prefix": "other"}),
}
TAIL: Table = {**READER, "--log-level": ("info", {"level": "info"})}
SERVE: Table = {
    "--exchanges": ("upbit,bybit", {"settings.exchanges": ("upbit", "bybit")}),
    "--host": ("localhost", {"settings.host": "localhost"}),
    "--port": ("8400", {"settings.port": 8400}),
    "--token": ("secret", {"settings.token": "secret"}),
    "--redis": ("redis://there:1/2", {"settings.redis": "redis://there:1/2"}),
    "--prefix": ("other", {"settings.prefix": "other"}),
    "--log-level": ("info", {"level": "info"}),
}
WEB: Table = {**SERVE, "--open": ("", {"open_page": True})}


class Stopped(Exception):  # noqa: N818 - no error
    """The command has made its settings."""


class Found:
    """What a command passes to the code that does its work."""

    def __init__(self) -> None:
        self.flat: Flat = {}

    def stop(self, names: str) -> Callable[..., Any]:
        """A function whose arguments are noted under these names, and which ends the command."""

        def work(*arguments: object, **more: object) -> None:
            self.note(dict(zip(names.split(), arguments, strict=False)) | more)
            raise Stopped

        return work

    def recorder(self, out: object, exchange: str) -> Mock:
        self.note({"out": out, "to": exchange})
        return Mock()

    def note(self, arguments: Mapping[str, object]) -> None:
        for name, value in arguments.items():
            if name.startswith("_"):
                continue
            self.flat |= flat(value, name)


def settings_of(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> Flat:
    package, _, name = command.partition(" ")
    module = f"bookbus.{package}.commands.{name}"
    found = Found()
    app = make_consumers() if package == "consumers" else make_feeders()
    with monkeypatch.context() as patch:
        if name not in ("show", "list", "web", "serve"):
            patch.setattr(f"{module}.start_logging", lambda level: found.note({"level": level}))
        if command == "consumers run":
            patch.setattr(f"{module}._run_on_source", found.stop("settings sources directory"))
            patch.setattr(f"{module}.check", lambda _: None)
        elif command == "feeders run":
            patch.setattr(f"{module}._run", found.stop("settings _venue interval"))
        elif command == "feeders record":
            patch.setattr(f"{module}.Recorder", found.recorder)
            patch.setattr(f"{module}._record", found.stop("settings _venue _recorder seconds"))
        elif command == "feeders replay":

            async def answer(_: str) -> None:
                pass

            patch.setattr(f"{module}.require_redis", answer)
            patch.setattr(f"{module}.ReplayFeeder", found.stop("_capture url names options speed symbols"))
        elif name in ("web", "serve"):
            module = "bookbus.consumers.commands.web"
            patch.setattr(f"{module}.start_logging", lambda level: found.note({"level": level}))
            patch.setattr(f"{module}._serve", found.stop("settings open_page"))
        elif command == "consumers list":
            patch.setattr(f"{module}.read_registry", found.stop("url names"))
        elif command == "consumers arbitrage":

            def assemble(make: Callable[[str, list[str]], object], *names: tuple[str, ...], **more: object) -> None:
                found.note(dict(zip(("exchanges", "symbols"), names, strict=True)) | more)
                make("binance", ["BTC-USDT"])

            patch.setattr(f"{module}.assemble", assemble)
            patch.setattr(f"{module}.RedisMarketDataProvider", found.stop("url _exchange _symbols"))
        else:
            patch.setattr(f"{module}.RedisMarketDataProvider", found.stop("url exchange wanted mode prefix"))
        result = CliRunner().invoke(app, [name, *arguments])
    assert isinstance(result.exception, Stopped), result.output
    return {path: str(value) if hasattr(value, "joinpath") else value for path, value in found.flat.items()}


def options_of(command: str) -> set[str]:
    package, _, name = command.partition(" ")
    app = make_consumers() if package == "consumers" else make_feeders()
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    return {option for each in commands[name].params for option in each.opts if option.startswith("--")} - {"--help"}


TABLES: Mapping[str, tuple[tuple[str, ...], Table, set[str]]] = {
    "consumers run": ((), CONSUMERS_RUN, {"--grid"}),
    "feeders run": ((), FEEDERS_RUN, set()),
    "feeders record": (("--out", "file.jsonl"), FEEDERS_RECORD, set()),
    "feeders replay": (("file.jsonl", "--redis", "redis://here:1/0"), FEEDERS_REPLAY, set()),
    "consumers show": (("BTC",), READER, {"--levels", "--json"}),
    "consumers tail": (("BTC",), TAIL, {"--json"}),
    "consumers list": ((), LIST, {"--json"}),
    "consumers web": ((), WEB, set()),
    "consumers serve": ((), SERVE, set()),
    "consumers arbitrage": ((), ARBITRAGE, {"--interval", "--once", "--json"}),
}


@pytest.mark.parametrize("command", TABLES)
def test_a_table_names_every_option(command: str) -> None:
    _, table, others = TABLES[command]

    assert options_of(command) == set(table) | others


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, (_, table, _) in TABLES.items() for option in table]
)
def test_an_option_reaches_its_own_setting_alone(monkeypatch: pytest.MonkeyPatch, command: str, option: str) -> None:
    needed, table, _ = TABLES[command]
    value, expected = table[option]

    before = settings_of(monkeypatch, command, *needed)
    after = settings_of(monkeypatch, command, *needed, option, *([value] if value else []))

    assert changed(before, after) == expected
