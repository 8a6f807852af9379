"""The local Binance exchange over real sockets: control messages, limits, how connections live and end."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from bookbus.feeders.simulator.binance.settings import BinanceRules
from bookbus.feeders.simulator.core.faults import Fault
from tests.support.simulated_exchange import ask, client, closing, exchange, receive


async def test_subscriptions_are_acknowledged_bare_listed_and_ended() -> None:
    async with exchange() as simulator, client(simulator) as connection:
        assert await ask(connection, "SUBSCRIBE", "btcusdt@depth@100ms", "ethusdt@trade") == {"result": None, "id": 1}
        assert await ask(connection, "UNSUBSCRIBE", "ethusdt@trade", request_id=2) == {"result": None, "id": 2}
        listed = await ask(connection, "LIST_SUBSCRIPTIONS", request_id=3)
        await ask(connection, "UNSUBSCRIBE", "btcusdt@depth@100ms", request_id=4)

    assert listed == {"result": ["btcusdt@depth@100ms"], "id": 3}


async def test_set_property_changes_the_form_of_what_follows() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        assert "stream" not in await receive(connection)
        assert await ask(connection, "GET_PROPERTY", "combined") == {"result": False, "id": 1}
        await ask(connection, "SET_PROPERTY", "combined", True)
        message = await receive(connection)

    assert message["stream"] == "btcusdt@depth@100ms"


@pytest.mark.parametrize("name", ["nopeusdt@depth@100ms", "BTCUSDT@depth@100ms", "btcusdt@blockTrade"])
async def test_what_the_exchange_does_not_have_is_acknowledged_and_silent(name: str) -> None:
    async with exchange() as simulator, client(simulator) as connection:
        assert await ask(connection, "SUBSCRIBE", name) == {"result": None, "id": 1}
        await ask(connection, "SUBSCRIBE", "btcusdt@depth@100ms")
        streams = {(await receive(connection))["stream"] for _ in range(3)}

    assert streams == {"btcusdt@depth@100ms"}


@pytest.mark.parametrize("shape", ["nested", "flat"])
async def test_errors_have_the_shape_asked_for(shape: str) -> None:
    async with exchange(error_shape=shape) as simulator, client(simulator) as connection:
        reply = await ask(connection, "JOIN")

    assert (reply["error"] if shape == "nested" else reply)["code"] == 2


async def test_a_subscription_of_too_many_bytes_is_ignored() -> None:
    streams = [f"coin{number:03}usdt@depth@100ms" for number in range(200)]
    async with exchange() as simulator, client(simulator) as connection:
        await connection.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
        listed = await ask(connection, "LIST_SUBSCRIPTIONS", request_id=2)

    assert listed == {"result": [], "id": 2}


async def test_more_than_1024_streams_are_refused() -> None:
    rules = BinanceRules(subscribe_bytes=10**6)
    streams = [f"coin{number}usdt@trade" for number in range(1025)]
    async with exchange(rules=rules) as simulator, client(simulator) as connection:
        assert "error" in await ask(connection, "SUBSCRIBE", *streams)
        assert await ask(connection, "SUBSCRIBE", *streams[:1024]) == {"result": None, "id": 1}


async def test_replies_can_be_lost_delayed_wrong_or_the_message_ignored() -> None:
    async with exchange() as simulator, client(simulator) as connection:
        simulator.inject(Fault(kind="subscribe_ignored"))
        await connection.send('{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms"],"id":1}')
        assert (await ask(connection, "LIST_SUBSCRIPTIONS", request_id=2))["result"] == []
        simulator.inject(Fault(kind="ack_error"))
        refused = await ask(connection, "SUBSCRIBE", "btcusdt@depth@100ms", request_id=3)
        simulator.inject(Fault(kind="ack_delayed", value=0.1))
        assert await ask(connection, "LIST_SUBSCRIPTIONS", request_id=4) == {"result": [], "id": 4}

    assert refused == {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 3}


async def test_a_lost_acknowledgement_leaves_the_subscription() -> None:
    async with exchange() as simulator, client(simulator) as connection:
        simulator.inject(Fault(kind="ack_lost"))
        await connection.send('{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms"],"id":1}')
        message = await receive(connection)

    assert message["stream"] == "btcusdt@depth@100ms"


async def test_pings_have_a_payload_and_an_answered_connection_lives_on() -> None:
    rules = BinanceRules(ping_interval=0.3, pong_timeout=0.2)
    async with exchange(rules=rules) as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        pongs: list[Frame] = []
        send_frame = connection.protocol.send_frame

        def observe(frame: Frame) -> None:
            pongs.append(frame)
            send_frame(frame)

        connection.protocol.send_frame = observe  # type: ignore[method-assign]
        for _ in range(10):
            await receive(connection)
        alive = simulator.status()["connections"]

    assert alive
    assert [abs(int(pong.data) / 1000 - time.time()) < 60 for pong in pongs[:2]] == [True, True]


async def test_a_client_that_does_not_answer_pings_is_closed() -> None:
    rules = BinanceRules(ping_interval=0.05, pong_timeout=0.1)
    async with exchange(rules=rules) as simulator, client(simulator) as connection:
        _answer_no_pings(connection)

        assert await closing(connection) == (1008, "Pong timeout")


async def test_an_unsolicited_pong_is_no_answer() -> None:
    rules = BinanceRules(ping_interval=0.05, pong_timeout=0.2)
    async with exchange(rules=rules) as simulator, client(simulator) as connection:
        _answer_no_pings(connection)
        await connection.pong(b"")

        assert await closing(connection) == (1008, "Pong timeout")


def _answer_no_pings(connection: ClientConnection) -> None:
    """The library answers by itself: let its pongs go nowhere."""
    send_frame = connection.protocol.send_frame
    connection.protocol.send_frame = (  # type: ignore[method-assign]
        lambda frame: None if frame.opcode is Opcode.PONG and frame.data else send_frame(frame)
    )


@pytest.mark.parametrize("kind", ["text", "ping", "pong"])
async def test_more_than_five_frames_a_second_close_the_connection(kind: str) -> None:
    rules = BinanceRules(ping_interval=1000.0, frame_window=1000.0)
    async with exchange(rules=rules) as simulator, client(simulator) as connection:
        send: dict[str, Callable[[], Any]] = {
            "text": lambda: connection.send('{"method":"LIST_SUBSCRIPTIONS","id":1}'),
            "ping": connection.ping,
            "pong": connection.pong,
        }
        for _ in range(6):
            await send[kind]()

        assert await closing(connection) == (1008, "Too many requests")


async def test_five_frames_a_second_are_allowed() -> None:
    rules = BinanceRules(ping_interval=1000.0, frame_window=1000.0)
    async with exchange(rules=rules) as simulator, client(simulator) as connection:
        for request_id in range(5):
            assert (await ask(connection, "LIST_SUBSCRIPTIONS", request_id=request_id))["id"] == request_id
        assert simulator.status()["connections"]


async def test_too_many_connects_are_refused_with_429() -> None:
    async with exchange(rules=BinanceRules(connects=3)) as simulator:
        for _ in range(3):
            async with client(simulator):
                pass
        with pytest.raises(InvalidStatus) as refusal:
            async with client(simulator):
                pass
        status = simulator.status()

    assert refusal.value.response.status_code == 429
    assert (status["connects"], status["connects_refused"], status["connects_highest"]) == (3, 1, 4)


@pytest.mark.parametrize("path", ["/ws/0", "/ws/nonsense", "/stream?streams=nonsense"])
async def test_any_name_in_the_path_is_accepted(path: str) -> None:
    async with exchange() as simulator, client(simulator, path) as connection:
        await ask(connection, "SUBSCRIBE", "btcusdt@depth@100ms")

        assert (await ask(connection, "LIST_SUBSCRIPTIONS"))["result"][-1] == "btcusdt@depth@100ms"


@pytest.mark.parametrize(("path", "status"), [("/elsewhere", 404)])
async def test_wrong_addresses_are_refused(path: str, status: int) -> None:
    async with exchange() as simulator:
        with pytest.raises(InvalidStatus) as refusal:
            async with client(simulator, path):
                pass

    assert refusal.value.response.status_code == status


async def test_a_connection_ends_when_its_lifetime_is_over() -> None:
    async with exchange(rules=BinanceRules(lifetime=0.3)) as simulator, client(simulator) as connection:
        assert (await closing(connection))[0] == 1001


@pytest.mark.parametrize("path", ["/ws", "/stream"])
async def test_a_shutdown_is_announced_in_the_form_of_the_connection(path: str) -> None:
    async with exchange() as simulator, client(simulator, path) as connection:
        simulator.inject(Fault(kind="server_shutdown", value=0.1))
        message = await receive(connection)
        code, _ = await closing(connection)

    payload = message["data"] if path == "/stream" else message
    assert payload == {"e": "serverShutdown", "E": payload["E"]}
    assert path == "/ws" or message["stream"] == "!serverShutdown"
    assert code == 1001
