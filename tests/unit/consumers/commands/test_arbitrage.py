"""The arbitrage command without Redis: its output and its errors."""

import json
from io import StringIO

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from bookbus.consumers.commands.arbitrage import arbitrage, json_line, parse_fees, table_of
from bookbus.consumers.multi.arbitrage import ASSUMPTION, Opportunity, find_opportunity
from tests.support.venue_books import venue_book

BINANCE = venue_book("binance", ((99_400.0, 0.3),), ((99_401.0, 1.0),), fee_bps=10.0, age=0.2)
UPBIT = venue_book("upbit", ((98_900.0, 1.0),), ((99_000.0, 0.5),), fee_bps=5.0, age=0.7)
STALE_RATE = venue_book("upbit", (), (), reason="FX USDT-KRW is stale: not confirmed for 9.0 s (limit 5 s)")

app = typer.Typer()
app.command()(arbitrage)


def printed(*found: Opportunity, width: int = 100) -> str:
    out = StringIO()
    Console(file=out, width=width).print(table_of(found, "USDT"))
    return out.getvalue()


def offer(symbol: str = "BTC-USDT") -> Opportunity:
    return find_opportunity(symbol, UPBIT, BINANCE, max_skew=1.0)


def test_a_row_has_the_pair_the_figures_and_the_ages() -> None:
    (row,) = [line.split() for line in printed(offer()).splitlines() if line.startswith(" BTC-USDT")]

    assert row == ["BTC-USDT", "upbit", "→", "binance", "+40.4", "+25.4", "0.3", "75.33", "0.7", "0.2", "–", "yes"]


def test_the_assumption_behind_net_figures_is_always_said() -> None:
    words = ASSUMPTION.split()

    assert printed(offer()).split()[-len(words) :] == words
    assert json.loads(json_line(offer(), 0.0))["assumes"] == ASSUMPTION
    assert ASSUMPTION in " ".join((arbitrage.__doc__ or "").split()).replace("Net figures", "net figures")


def test_a_reason_is_said_once_for_all_pairs_that_have_it() -> None:
    found = [find_opportunity(symbol, STALE_RATE, BINANCE, max_skew=1.0) for symbol in ("BTC-USDT", "ETH-USDT")]

    text = printed(*found, width=200)

    assert text.count("FX USDT-KRW is stale: not confirmed for 9.0 s (limit 5 s)") == 1
    assert "BTC-USDT upbit → binance, ETH-USDT upbit → binance: FX" in text


def test_a_line_of_json_has_every_figure() -> None:
    fields = json.loads(json_line(offer(), 1_700_000_000.12345))

    assert fields["time"] == 1_700_000_000.123
    assert (fields["symbol"], fields["buy"], fields["sell"]) == ("BTC-USDT", "upbit", "binance")
    assert fields["net_bps"] == offer().net_bps
    assert (fields["actionable"], fields["reason"]) == (True, "")


def test_fees_are_given_by_exchange() -> None:
    assert parse_fees(" binance=7.5, upbit=0 ") == {"binance": 7.5, "upbit": 0.0}
    assert parse_fees("") == {}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fees", "binance"], "--fees binance: write exchange=bps, like binance=7.5"),
        (["--fees", "kraken=5"], "a fee is given for kraken, which is not among binance, upbit"),
        (["--exchanges", "binance,mtgox"], "unknown exchange 'mtgox'"),
        (["--exchanges", ","], "--exchanges names nothing"),
        (["--symbols", "BTC-KRW"], "BTC-KRW: the common quote currency is USDT; give the base asset alone"),
        (["--fx", "USDT-KRW"], "'USDT-KRW' names no exchange rate: write exchange:symbol, like upbit:USDT-KRW"),
        (["--fx", "upbit:USDC-KRW"], "upbit quotes in KRW: USDC-KRW is no rate from that to USDT"),
        (["--max-skew", "0"], "max_skew must be above zero"),
        (["--fx-max-age", "-1"], "the max_age of the exchange rate must be above zero"),
        (["--redis", "http://x"], "not a usable Redis URL"),
        (["--redis", "redis://127.0.0.1:1/0"], "no Redis answers at redis://127.0.0.1:1/0"),
        (["--log-level", "loud"], "unknown log level 'loud'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["--once", *arguments])

    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {complaint}")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_options_have_environment_twins() -> None:
    result = CliRunner().invoke(app, ["--once"], env={"BOOKBUS_FEES": "kraken=1", "BOOKBUS_EXCHANGES": "binance"})

    assert result.stderr == "error: a fee is given for kraken, which is not among binance\n"
