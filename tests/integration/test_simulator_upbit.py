"""The local Upbit speaks as the real one: whole books, replaced subscriptions, its errors, limits and silences."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from bookbus.feeders.simulator.core.faults import Fault, FaultError
from bookbus.feeders.simulator.process import SimulatorError, SimulatorProcess
from bookbus.feeders.simulator.upbit.settings import UpbitRules
from tests.support.simulated_upbit import (
    LIMIT,
    ask,
    books,
    client,
    closing,
    exchange,
    get,
    post,
    receive,
    receive_some,
    sides,
)
from tests.support.waiting import await_for

SLOW = UpbitRules().scaled(0.1)
"""So that a busy machine still reaches a limit in time."""


async def test_every_frame_is_the_true_book_at_its_time_whatever_the_format() -> None:
    async with exchange() as upbit:
        for form in ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"):
            async with client(upbit) as connection:
                await ask(connection, books("KRW-BTC", "BTC-ETH"), form=form)
                frames = await receive_some(connection, 8)
            assert {isinstance(frame, list) for frame in frames} == {form.endswith("LIST")}
            frames = [frame[0] if isinstance(frame, list) else frame for frame in frames]
            assert {"ty" in frame for frame in frames} == {form.startswith("SIMPLE")}
            for frame in frames:
                code, at = (frame["cd"], frame["tms"]) if "ty" in frame else (frame["code"], frame["timestamp"])
                assert sides(frame) == upbit.truth(code, at, 30)


async def test_first_frames_come_after_a_while_then_a_frame_a_tenth_of_a_second() -> None:
    async with exchange("KRW-BTC", "KRW-ETH") as upbit, client(upbit) as connection:
        asked_at = time.monotonic()
        await ask(connection, books("KRW-BTC", "KRW-ETH"))
        frames = [await receive(connection)]
        first_after = time.monotonic() - asked_at
        frames += await receive_some(connection, 20)

        assert first_after >= 0.17
        for code in ("KRW-BTC", "KRW-ETH"):
            own = [frame for frame in frames if frame["code"] == code]
            assert [frame["stream_type"] for frame in own] == ["SNAPSHOT"] + ["REALTIME"] * (len(own) - 1)
            times = [frame["timestamp"] for frame in own[1:]]
            assert times == sorted(set(times))
            assert len({at % 100 for at in times}) == 1


async def test_a_quiet_market_sends_its_old_book_once_and_nothing_more() -> None:
    async with exchange("KRW-BTC", "KRW-XRP", quiet=("KRW-XRP",)) as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC", "KRW-XRP"))
        frames = await receive_some(connection, 15)

        (quiet,) = [frame for frame in frames if frame["code"] == "KRW-XRP"]
        assert quiet["stream_type"] == "SNAPSHOT"
        assert time.time() * 1000 - quiet["timestamp"] > 1000
        assert sides(quiet) == upbit.truth("KRW-XRP", quiet["timestamp"], 30)


async def test_numbers_are_spelled_as_the_exchange_spells_them() -> None:
    async with exchange("KRW-BTC", rate=0) as upbit:
        texts = {}
        for form in ("DEFAULT", "SIMPLE"):
            async with client(upbit) as connection:
                await ask(connection, books("KRW-BTC.1"), form=form)
                texts[form] = bytes(await connection.recv()).decode()  # type: ignore[arg-type]

        assert re.search(r'"ask_price":\d\.\d+E7,', texts["DEFAULT"])
        assert re.search(r'"ask_size":\d+\.\d{8},', texts["DEFAULT"])
        assert re.search(r'"ap":\d{8}(\.\d+)?,', texts["SIMPLE"])


@pytest.mark.parametrize(
    ("code", "units"),
    [("KRW-BTC", 30), ("KRW-BTC.30", 30), ("KRW-BTC.15", 15), ("KRW-BTC.5", 5), ("KRW-BTC.1", 1), ("KRW-BTC.20", 30)],
)
async def test_the_suffix_picks_the_number_of_levels_and_is_not_repeated(code: str, units: int) -> None:
    async with exchange("KRW-BTC") as upbit, client(upbit) as connection:
        await ask(connection, books(code))
        frame = await receive(connection)

        assert frame["code"] == "KRW-BTC"
        assert len(frame["orderbook_units"]) == units
        bids, _ = sides(frame)
        assert frame["total_bid_size"] == pytest.approx(sum(size for _, size in bids))


async def test_a_thin_side_is_filled_up_with_zeros() -> None:
    async with exchange("BTC-ETH") as upbit, client(upbit) as connection:
        await ask(connection, books("BTC-ETH"))
        frame = await receive(connection)

        bids, asks = sides(frame)
        assert len(frame["orderbook_units"]) == 30
        assert len(asks) < len(bids)
        assert frame["orderbook_units"][-1]["ask_price"] == frame["orderbook_units"][-1]["ask_size"] == 0


async def test_a_request_replaces_the_one_before() -> None:
    async with exchange("KRW-BTC", "KRW-ETH", "KRW-XRP") as upbit, client(upbit) as connection:
        trailing = []
        for old, new in (("KRW-BTC", "KRW-ETH"), ("KRW-ETH", "KRW-XRP"), ("KRW-XRP", "KRW-BTC")):
            await ask(connection, books(old))
            while (await receive(connection))["code"] != old:
                pass
            await ask(connection, books(new))
            codes = [frame["code"] for frame in await receive_some(connection, 8)]

            old_ones = codes.index(new)
            assert set(codes[:old_ones]) <= {old}
            assert set(codes[old_ones:]) == {new}
            trailing.append(old_ones)
        # What was already in the socket comes on top.
        assert max(trailing) <= 4


async def test_unknown_lower_case_and_wrongly_grouped_markets_are_passed_over() -> None:
    async with exchange("KRW-BTC", "KRW-ETH", "BTC-ETH") as upbit, client(upbit) as connection:
        await ask(
            connection,
            books("KRW-NOPE", "krw-btc", "KRW-BTC"),
            books("BTC-ETH", level=10000),
            books("KRW-ETH", level=7),
        )
        frames = await receive_some(connection, 10)

        assert {frame["code"] for frame in frames} == {"KRW-BTC"}


async def test_levels_are_grouped_where_the_exchange_offers_it() -> None:
    async with exchange("KRW-BTC", rate=0) as upbit, client(upbit) as connection:
        _, (offered,), _ = await get(upbit, "/v1/orderbook/instruments?markets=KRW-BTC")
        level = float(offered["supported_levels"][1])
        await ask(connection, books("KRW-BTC", level=level))
        frame = await receive(connection)

        truth = upbit.truth("KRW-BTC", frame["timestamp"], 30)
        assert truth is not None
        bids, asks = sides(frame)
        assert frame["level"] == level
        assert all(round(price / level, 6) % 1 == 0 for price, _ in (*bids, *asks))
        assert sum(size for _, size in bids) == pytest.approx(sum(size for _, size in truth[0]))
        assert bids[0][0] <= truth[0][0][0]
        assert asks[0][0] >= truth[1][0][0]


async def test_only_a_snapshot_or_only_what_is_new_can_be_asked_for() -> None:
    async with exchange("KRW-BTC", "KRW-ETH") as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC", is_only_snapshot=True), books("KRW-ETH", is_only_realtime=True))
        frames = await receive_some(connection, 10)

        assert Counter((frame["code"], frame["stream_type"]) for frame in frames) == {
            ("KRW-BTC", "SNAPSHOT"): 1,
            ("KRW-ETH", "REALTIME"): 9,
        }


async def test_trades_have_unique_ids_and_say_who_took() -> None:
    async with exchange("KRW-BTC", changes=60) as upbit, client(upbit) as connection:
        await ask(connection, {"type": "trade", "codes": ["KRW-BTC"]}, form="SIMPLE")
        trades = [await receive(connection) for _ in range(20)]

        assert {trade["ty"] for trade in trades} == {"trade"}
        assert {trade["ab"] for trade in trades} <= {"ASK", "BID"}
        assert len({trade["sid"] for trade in trades}) == 20
        assert all(trade["tp"] > 0 and trade["tv"] > 0 for trade in trades)


TICKET = {"ticket": "test"}


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("not JSON", "WRONG_FORMAT"),
        ('{"ticket":"test"}', "WRONG_FORMAT"),
        ("[1,2]", "WRONG_FORMAT"),
        ([books("KRW-BTC")], "NO_TICKET"),
        ([{"ticket": ""}, books("KRW-BTC")], "NO_TICKET"),
        ([TICKET], "NO_TYPE"),
        ([TICKET, {"type": "orderbook"}], "NO_CODES"),
        ([TICKET, books()], "NO_CODES"),
        ([TICKET, {"type": "nope", "codes": ["KRW-BTC"]}], "INVALID_PARAM"),
        ([TICKET, books("KRW-BTC"), {"format": "NICE"}], "WRONG_FORMAT"),
    ],
)
async def test_an_error_is_followed_by_a_normal_close(message: Any, name: str) -> None:
    async with exchange("KRW-BTC") as upbit, client(upbit) as connection:
        await connection.send(message if isinstance(message, str) else json.dumps(message))

        assert (await receive(connection))["error"]["name"] == name
        status_at = time.monotonic()
        assert await closing(connection) == 1000
        assert time.monotonic() - status_at >= 0.1


async def test_pings_are_answered_and_a_text_ping_starts_a_word_now_and_then() -> None:
    async with exchange(rules=UpbitRules().scaled(50)) as upbit, client(upbit) as connection:
        await asyncio.wait_for(await connection.ping(b"any payload"), LIMIT)
        await connection.send("PING")

        assert await receive_some(connection, 3) == [{"status": "UP"}] * 3


async def test_an_idle_connection_is_cut_without_a_closing_frame() -> None:
    async with exchange(rules=UpbitRules().scaled(100)) as upbit, client(upbit) as connection:
        assert await closing(connection) is None
        await await_for(lambda: upbit.status()["idle_cuts"] == 1)


async def test_pings_keep_an_idle_connection() -> None:
    async with (
        exchange("KRW-XRP", rate=0, rules=UpbitRules().scaled(100)) as upbit,
        client(upbit, ping_interval=0.1) as kept,
        client(upbit) as left,
    ):
        assert await closing(left) is None
        await ask(kept, books("KRW-XRP"))
        assert (await receive(kept))["code"] == "KRW-XRP"


async def test_an_exchange_that_counts_only_the_client_cuts_a_busy_connection_too() -> None:
    rules = UpbitRules(idle_by_client=True).scaled(50)
    async with exchange("KRW-BTC", rules=rules) as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC"))
        await receive_some(connection, 5)

        assert await closing(connection) is None


async def test_more_than_five_connections_a_second_are_refused() -> None:
    async with exchange(rules=SLOW) as upbit:
        opened = [client(upbit) for _ in range(6)]
        results = await asyncio.gather(*(each.__aenter__() for each in opened), return_exceptions=True)

        refused = [result for result in results if isinstance(result, InvalidStatus)]
        assert [result.response.status_code for result in refused] == [429]
        for each, result in zip(opened, results, strict=True):
            if not isinstance(result, BaseException):
                await each.__aexit__(None, None, None)


async def test_a_web_page_may_connect_once_in_a_while() -> None:
    async with exchange() as upbit, client(upbit, origin="https://example.org"):
        with pytest.raises(InvalidStatus) as refused:
            async with client(upbit, origin="https://example.org"):
                pass
        assert refused.value.response.status_code == 429
        async with client(upbit):
            assert upbit.status()["connects_with_origin"] == 2


@pytest.mark.parametrize("rules", [SLOW, UpbitRules(messages=1000, more_messages=5)], ids=["a second", "a minute"])
async def test_too_many_messages_end_the_connection(rules: UpbitRules) -> None:
    async with exchange("KRW-BTC", rate=0, rules=rules) as upbit, client(upbit) as connection:
        for _ in range(6):
            await ask(connection, books("KRW-BTC"))

        assert (await receive(connection))["error"]["name"] == "TOO_MANY_REQUESTS"
        assert await closing(connection) == 1000


async def test_the_subscriptions_can_be_listed_in_both_spellings() -> None:
    async with exchange("KRW-BTC", rate=0) as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC.5"))
        await receive(connection)

        await ask(connection, {"method": "LIST_SUBSCRIPTIONS"})
        assert await receive(connection) == {
            "method": "LIST_SUBSCRIPTIONS",
            "result": [{"type": "orderbook", "codes": ["KRW-BTC.5"], "level": 0}],
            "ticket": "test",
        }
        await ask(connection, {"method": "LIST_SUBSCRIPTIONS"}, form="SIMPLE")
        assert await receive(connection) == {
            "mthd": "LIST_SUBSCRIPTIONS",
            "rslt": [{"ty": "orderbook", "cds": ["KRW-BTC.5"], "lv": 0}],
            "tckt": "test",
        }


async def test_a_prepared_market_goes_there_and_back_and_its_truth_stays_known() -> None:
    async with exchange("KRW-BTC", prepared=0.5, changes=3) as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC"), form="SIMPLE")
        frames = await receive_some(connection, 25)

        assert [sides(frame) for frame in frames] == [upbit.truth("KRW-BTC", frame["tms"], 30) for frame in frames]
        assert len({frame["tms"] for frame in frames}) == 25
        assert len({sides(frame) for frame in frames}) <= 6


async def test_requests_are_answered_with_the_book_of_the_socket() -> None:
    async with exchange("KRW-BTC", "BTC-ETH", rate=0) as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC", "BTC-ETH"))
        frames = {frame["code"]: frame for frame in await receive_some(connection, 2)}

        status, answer, headers = await get(upbit, "/v1/orderbook?markets=krw-btc,BTC-ETH")

        assert status == 200
        assert re.fullmatch(r"group=orderbook; min=\d+; sec=9", headers["Remaining-Req"])
        assert [book["market"] for book in answer] == ["KRW-BTC", "BTC-ETH"]
        for book in answer:
            assert book["timestamp"] == frames[book["market"]]["timestamp"]
            assert sides(book) == sides(frames[book["market"]])


@pytest.mark.parametrize(("count", "units"), [(1, 1), (7, 7), (30, 30), (31, 30), (0, 30)])
async def test_a_request_may_ask_for_any_number_of_levels(count: int, units: int) -> None:
    async with exchange("KRW-BTC") as upbit:
        _, (book,), _ = await get(upbit, f"/v1/orderbook?markets=KRW-BTC&count={count}")

        assert len(book["orderbook_units"]) == units


async def test_one_unknown_market_rejects_a_request_and_errors_are_named_by_number() -> None:
    async with exchange("KRW-BTC", "BTC-ETH") as upbit:
        status, answer, _ = await get(upbit, "/v1/orderbook?markets=KRW-BTC,KRW-NOPE")
        assert (status, answer) == (404, {"error": {"name": 404, "message": "Code not found"}})
        assert (await get(upbit, "/v1/orderbook"))[0] == 400
        assert (await get(upbit, "/v1/nothing"))[0] == 404
        assert (await get(upbit, "/v1/orderbook?markets=BTC-ETH&level=10000"))[:2] == (200, [])


async def test_markets_and_tick_sizes_can_be_asked_for() -> None:
    async with exchange("KRW-BTC", "BTC-ETH") as upbit:
        _, markets, headers = await get(upbit, "/v1/market/all?is_details=true")
        assert [market["market"] for market in markets] == ["KRW-BTC", "BTC-ETH"]
        assert markets[0]["market_event"]["warning"] is False
        assert headers["Remaining-Req"].startswith("group=market;")

        _, found, _ = await get(upbit, "/v1/orderbook/instruments?markets=KRW-BTC,BTC-ETH")
        assert [entry["quote_currency"] for entry in found] == ["KRW", "BTC"]
        assert float(found[0]["tick_size"]) == upbit.instrument("KRW-BTC").price(1)
        assert found[1]["supported_levels"] == ["0"]

        _, days, _ = await get(upbit, "/v1/ticker/all?quote_currencies=KRW")
        assert [day["market"] for day in days] == ["KRW-BTC"]
        assert days[0]["acc_trade_price_24h"] > 0


async def test_day_figures_trades_and_candles_can_be_asked_for() -> None:
    async with exchange("KRW-BTC", "KRW-ETH", changes=60) as upbit, client(upbit) as connection:
        await ask(connection, {"type": "trade", "codes": ["KRW-BTC"]})
        streamed = {trade["sequential_id"]: trade["trade_price"] for trade in await receive_some(connection, 10)}
        _, days, _ = await get(upbit, "/v1/ticker?markets=KRW-ETH,KRW-BTC")
        _, trades, headers = await get(upbit, "/v1/trades/ticks?market=KRW-BTC&count=500")
        _, candles, _ = await get(upbit, "/v1/candles/minutes/3?market=KRW-BTC&count=4")
        _, old, _ = await get(upbit, "/v1/candles/days?market=KRW-BTC&count=1&to=2026-01-05T00:00:00Z")

        assert [day["market"] for day in days] == ["KRW-ETH", "KRW-BTC"]
        assert {trade["sequential_id"]: trade["trade_price"] for trade in trades}.items() >= streamed.items()
        assert headers["Remaining-Req"].startswith("group=trades;")
        assert [candle["unit"] for candle in candles] == [3, 3, 3, 3]
        starts = [candle["candle_date_time_utc"] for candle in candles]
        assert starts == sorted(starts, reverse=True)
        assert [candle["candle_date_time_utc"] for candle in old] == ["2026-01-04T00:00:00"]
        assert (await get(upbit, "/v1/candles/minutes/2?market=KRW-BTC"))[0] == 404
        assert (await get(upbit, "/v1/trades/ticks?market=KRW-NO"))[0] == 404
        assert (await get(upbit, "/v1/trades/ticks"))[0] == 400
        assert (await get(upbit, "/v1/candles/days?market=KRW-BTC&to=yesterday"))[0] == 400


@pytest.mark.parametrize("kind", ["ticker", "candle.1m"])
async def test_day_figures_and_candles_come_at_once_and_with_each_trade(kind: str) -> None:
    async with exchange("KRW-BTC", changes=60) as upbit, client(upbit) as connection:
        await ask(connection, {"type": kind, "codes": ["KRW-BTC"]})
        messages = await receive_some(connection, 3)

    assert [message["stream_type"] for message in messages] == ["SNAPSHOT", "REALTIME", "REALTIME"]
    assert {message["type"] for message in messages} == {kind}


async def test_a_won_market_is_on_the_grid_of_its_price() -> None:
    async with exchange("KRW-BTC") as upbit:
        _, (book,), _ = await get(upbit, "/v1/orderbook?markets=KRW-BTC")
        _, (entry,), _ = await get(upbit, "/v1/orderbook/instruments?markets=KRW-BTC")

    prices = [unit[f"{side}_price"] for unit in book["orderbook_units"] for side in ("bid", "ask")]
    assert len(prices) == 60
    assert all(price % 1000 == 0 for price in prices)
    assert (entry["tick_size"], entry["supported_levels"][1]) == ("1000", "10000")


async def test_too_many_requests_are_refused_and_insisting_is_a_ban() -> None:
    async with exchange("KRW-BTC", rules=SLOW) as upbit:
        statuses = [(await get(upbit, "/v1/market/all"))[0] for _ in range(17)]

        assert statuses == [200] * 10 + [429] * 5 + [418] * 2
        assert (await get(upbit, "/v1/orderbook?markets=KRW-BTC"))[0] == 200


async def test_a_web_page_may_ask_once_in_a_while() -> None:
    async with exchange("KRW-BTC") as upbit:
        statuses = [(await get(upbit, "/v1/market/all", Origin="https://example.org"))[0] for _ in range(2)]

        assert statuses == [200, 429]


async def test_the_control_endpoint_reports_the_truth_by_time() -> None:
    async with exchange("KRW-BTC") as upbit, client(upbit) as connection:
        await ask(connection, books("KRW-BTC"))
        frame = (await receive_some(connection, 3))[-1]

        status, answer, _ = await get(upbit, f"/control/truth?symbol=KRW-BTC&update_id={frame['timestamp']}")

        assert status == 200
        assert tuple((float(price), float(size)) for price, size in answer["bids"]) == sides(frame)[0]
        assert (await get(upbit, "/control/truth?symbol=KRW-BTC&update_id=5"))[0] == 404
        assert (await get(upbit, "/control/status"))[1]["connects"] == 1


@pytest.mark.parametrize("kind", ["server_shutdown", "ack_lost", "stale_snapshot", "binary", "gap_at_bridge"])
async def test_what_cannot_happen_on_this_exchange_cannot_be_asked_for(kind: str) -> None:
    async with exchange("KRW-BTC") as upbit:
        with pytest.raises(FaultError, match=f"this exchange knows no '{kind}'"):
            upbit.inject(Fault(kind=kind))
        assert (await post(upbit, "/control/fault", {"kind": kind}))[0] == 400


async def test_ids_fall_when_the_exchange_starts_anew() -> None:
    async with exchange("KRW-BTC") as upbit:
        async with client(upbit) as connection:
            await ask(connection, books("KRW-BTC"))
            before = (await receive_some(connection, 2))[-1]
            upbit.inject(Fault(kind="cold_restart"))
            assert await closing(connection) is None
        async with client(upbit) as connection:
            await ask(connection, books("KRW-BTC"))
            after = await receive(connection)

        assert after["timestamp"] < before["timestamp"]
        for frame in (before, after):
            assert sides(frame) == upbit.truth("KRW-BTC", frame["timestamp"], 30)


def test_it_runs_in_a_process_of_its_own() -> None:
    with SimulatorProcess(["KRW-BTC"], exchange="upbit", seed=2, levels=120) as upbit:
        assert upbit.symbols == ["KRW-BTC"]
        (update_id, truth), *_ = upbit.truths("KRW-BTC").items()
        assert upbit.truth("KRW-BTC", update_id) == truth
        with pytest.raises(SimulatorError, match="this exchange knows no 'ack_lost'"):
            upbit.inject(kind="ack_lost")


@pytest.mark.parametrize(
    ("exchange_id", "options", "message"),
    [
        ("upbit", {"error_shape": "flat"}, "upbit has no option error_shape"),
        ("upbit", {"rate": 11.0}, "rate must be between 0 and 10"),
        ("upbit", {"levels": "many"}, "Expected `int`"),
        ("nowhere", {}, "no simulator for 'nowhere': use binance or"),
    ],
)
def test_options_that_make_no_sense_are_refused(exchange_id: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatorProcess(exchange=exchange_id, **options)


def test_the_command_serves_both_exchanges() -> None:
    arguments = ("--exchange", "both", "--symbols", "BTC,ETH", "--levels", "120")
    with subprocess.Popen(
        [sys.executable, "-m", "feeders", "simulate", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        code = process.wait(LIMIT)

    assert {line["exchange"]: line["symbols"] for line in ready} == {
        "binance": ["BTCUSDT", "ETHUSDT"],
        "upbit": ["KRW-BTC", "KRW-ETH"],
    }
    assert code == 0
