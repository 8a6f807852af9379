"""The local Binance exchange over real sockets: faults on request, the control endpoint, its own process."""

import asyncio
from itertools import pairwise

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from bookbus.feeders.simulator.binance.settings import BinanceRules
from bookbus.feeders.simulator.core.faults import Fault, FaultError
from bookbus.feeders.simulator.process import SimulatorError, SimulatorProcess
from tests.support.simulated_exchange import LIMIT, Book, ask, client, closing, exchange, get, levels, post, receive
from tests.support.waiting import INTERVAL, await_for


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011])
async def test_a_connection_is_closed_with_the_code_asked_for(code: int) -> None:
    async with exchange() as simulator, client(simulator) as connection:
        simulator.inject(Fault(kind="close", value=code))

        assert (await closing(connection))[0] == code


@pytest.mark.parametrize("fault", [Fault(kind="close", value=1006), Fault(kind="reset")])
async def test_a_connection_breaks_without_a_closing_frame(fault: Fault) -> None:
    async with exchange() as simulator, client(simulator) as connection:
        simulator.inject(fault)

        assert (await closing(connection))[0] == 1006
        await await_for(lambda: not simulator.status()["connections"])


async def test_a_fault_may_name_one_connection() -> None:
    async with exchange() as simulator, client(simulator) as first, client(simulator) as second:
        simulator.inject(Fault(kind="reset", connection=2))
        await closing(second)

        assert await ask(first, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        with pytest.raises(FaultError, match="no connection 7"):
            simulator.inject(Fault(kind="reset", connection=7))


async def test_a_silent_connection_still_answers_pings_and_recovers() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        simulator.inject(Fault(kind="silence"))
        while True:  # what was on its way
            try:
                await asyncio.wait_for(connection.recv(), 0.25)
            except TimeoutError:
                break
        assert await asyncio.wait_for(await connection.ping(), LIMIT) >= 0
        simulator.clear()

        assert (await receive(connection))["e"] == "depthUpdate"


@pytest.mark.parametrize("fault", [Fault(kind="silence", value="no pongs"), Fault(kind="half_open")])
async def test_a_dead_connection_answers_nothing(fault: Fault) -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        simulator.inject(fault)
        pong = await connection.ping()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pong), 0.3)
        assert simulator.status()["connections"]
        simulator.clear()
        assert (await receive(connection))["e"] == "depthUpdate"


async def test_a_slow_connection_delivers_everything_late_and_whole() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        simulator.inject(Fault(kind="slow_drip", value=4000))
        events = [await receive(connection) for _ in range(5)]
        assert await asyncio.wait_for(await connection.ping(), LIMIT) >= 0
        simulator.clear()
        events += [await receive(connection) for _ in range(5)]

    assert [later["U"] - earlier["u"] for earlier, later in pairwise(events)] == [1] * 9


async def test_a_slow_connection_can_be_closed() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        simulator.inject(Fault(kind="slow_drip", value=20_000))
        await receive(connection)
        simulator.inject(Fault(kind="close", value=1011))

        assert (await closing(connection))[0] == 1011


@pytest.mark.parametrize(("way", "error"), [("tcp", OSError), ("http", InvalidStatus)])
async def test_connections_are_refused_for_a_while(way: str, error: type[Exception]) -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connected:
        simulator.inject(Fault(kind="refuse_connections", seconds=0.4, value=way))
        with pytest.raises(error):
            async with client(simulator):
                pass
        assert (await receive(connected))["e"] == "depthUpdate"

        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    async with client(simulator) as again:
                        assert await ask(again, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
                        break
                except error:
                    await asyncio.sleep(INTERVAL)


async def test_after_a_cold_restart_ids_are_lower_and_books_others() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        before = await receive(connection)
        simulator.inject(Fault(kind="cold_restart"))
        assert (await closing(connection))[0] == 1006
        async with client(simulator, "/ws/btcusdt@depth@100ms") as again:
            await receive(again)
            book = Book((await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body)
            while book.update_id < (event := await receive(again))["u"]:
                book.apply(event)
                assert book.top() == simulator.truth("BTCUSDT", book.update_id)
                break

    assert book.update_id < before["u"]


async def test_data_faults_change_the_stream_and_leave_the_truth() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        simulator.inject(Fault(kind="drop", symbols=("BTCUSDT",), count=2))
        events = [await receive(connection) for _ in range(6)]
        status = simulator.status()

    holes = [later["U"] - earlier["u"] - 1 for earlier, later in pairwise(events)]
    assert sum(hole > 0 for hole in holes) <= 1
    assert status["faults_played"] == {"drop": 2}
    assert simulator.truth("BTCUSDT", events[-1]["u"]) is not None


async def test_the_control_endpoint_injects_clears_and_reports() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        event = await receive(connection)
        path = f"/control/truth?symbol=BTCUSDT&update_id={event['u']}&depth=3"
        truth = (await get(simulator, path)).body
        series = (await get(simulator, f"/control/truth?symbol=BTCUSDT&since={event['u']}")).body["books"]
        await receive(connection)
        span = f"since={event['u']}&until={event['u']}"
        only = (await get(simulator, f"/control/truth?symbol=BTCUSDT&{span}")).body["books"]
        injected = await post(simulator, "/control/fault", {"kind": "drop", "count": 3})
        waiting = (await get(simulator, "/control/status")).body["faults_waiting"]
        cleared = await post(simulator, "/control/clear", {})
        after = (await get(simulator, "/control/status")).body

    assert (levels(truth["bids"]), levels(truth["asks"])) == simulator.truth("BTCUSDT", event["u"], 3)
    assert series[0]["update_id"] == event["u"]
    assert len(series[0]["bids"]) == 20
    assert [book["update_id"] for book in only] == [event["u"]]
    assert (injected.status, cleared.status, waiting) == (200, 200, ["drop"])
    assert after["faults_waiting"] == []
    assert after["connections"][0]["streams"] == 1


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"kind": "rain"}, "unknown fault"),
        ({"kind": "drop", "colour": 1}, "colour"),
        ({"kind": "reset", "connection": 9}, "no connection 9"),
        ({"kind": "close", "symbols": ["BTCUSDT"]}, "not symbols"),
        ([], "object"),
    ],
)
async def test_a_fault_that_cannot_be_played_is_refused_with_the_reason(body: object, hint: str) -> None:
    async with exchange() as simulator:
        answer = await post(simulator, "/control/fault", body)

    assert answer.status == 400
    assert hint in answer.body["error"]


@pytest.mark.parametrize(
    "path", ["/control/truth?symbol=NOPE&update_id=1", "/control/truth?symbol=BTCUSDT&update_id=1", "/control/else"]
)
async def test_control_says_what_it_does_not_know(path: str) -> None:
    async with exchange() as simulator:
        answer = await get(simulator, path)

    assert answer.status == 404
    assert answer.body["error"]


async def test_a_fault_can_come_again_and_again() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        simulator.inject(Fault(kind="duplicate", every=0.2))
        async with asyncio.timeout(LIMIT):
            while simulator.status()["faults_played"] != {"duplicate": 3}:
                await receive(connection)


async def test_a_simulator_in_its_own_process_serves_and_ends() -> None:
    with SimulatorProcess(symbols=3, levels=300, rules=BinanceRules(ping_interval=1000.0)) as simulator:
        assert simulator.symbols == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
        async with connect(f"{simulator.ws_url}/ws/btcusdt@depth@100ms", compression=None) as connection:
            event = await receive(connection)
        truth = await asyncio.to_thread(simulator.truth, "BTCUSDT", event["u"])
        series = await asyncio.to_thread(simulator.truths, "BTCUSDT", event["u"])
        unknown = await asyncio.to_thread(simulator.truth, "BTCUSDT", 1)
        with pytest.raises(SimulatorError, match="unknown fault"):
            await asyncio.to_thread(simulator.inject, kind="rain")
        await asyncio.to_thread(simulator.inject, kind="drop", count=2)
        assert (await asyncio.to_thread(simulator.status))["faults_waiting"] == ["drop"]
        await asyncio.to_thread(simulator.clear)
        process = simulator._process

    assert truth == series[event["u"]]
    assert unknown is None
    assert process is not None
    assert process.returncode == 0
