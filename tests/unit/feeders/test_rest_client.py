"""Requests within an exchange's limits, and what each of its refusals means."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bookbus.feeders.errors import RestBlockedError, RestError, RestRefusedError
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, HttpServer


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + 1e-9  # a sleep never ends early, however short


def budget(time: FakeTime, per_minute: int = 1800, share: float = 0.5, burst: float = 30.0) -> WeightBudget:
    """By default ten units a second, three hundred at once."""
    return WeightBudget(per_minute, share, burst, time.clock, time.sleep)


async def test_what_was_left_unused_may_be_spent_at_once() -> None:
    time = FakeTime()
    of = budget(time)

    for _ in range(30):
        await of.spend(10)

    assert time.slept == []
    assert of.spent == 300


async def test_beyond_that_a_request_waits_until_its_weight_is_refilled() -> None:
    time = FakeTime()
    of = budget(time)
    await of.spend(300)

    await of.spend(50)

    assert time.now - 1000.0 == pytest.approx(5.0)


async def test_what_is_refilled_never_exceeds_the_burst() -> None:
    time = FakeTime()
    of = budget(time)
    time.now += 3600

    await of.spend(300)
    await of.spend(10)

    assert time.now - 4600.0 == pytest.approx(1.0)


async def test_what_is_not_urgent_leaves_a_third_for_what_is() -> None:
    time = FakeTime()
    of = budget(time)

    await of.spend(200, urgent=False)
    assert time.slept == []
    await of.spend(100)
    assert time.slept == []
    await of.spend(10, urgent=False)

    assert time.now - 1000.0 == pytest.approx(11.0)


async def test_a_request_heavier_than_the_burst_is_let_through_when_the_budget_is_full() -> None:
    time = FakeTime()
    of = budget(time, per_minute=1220, burst=1.0)

    await of.spend(250)
    await of.spend(1)

    assert time.now - 1000.0 == pytest.approx(24.1)


async def test_no_minute_uses_more_than_the_share() -> None:
    time = FakeTime()
    of = budget(time, per_minute=1800, share=0.5)
    used: list[tuple[float, int]] = []

    for _ in range(400):
        await of.spend(10)
        used.append((time.now, 10))

    for start, _ in used:
        assert sum(weight for at, weight in used if start <= at < start + 60) <= 900 + 10


async def test_while_closed_nothing_is_spent() -> None:
    time = FakeTime()
    of = budget(time)
    of.close_for(60.0)
    of.close_for(5.0)  # a shorter one does not open it earlier

    await of.spend(1)

    assert time.now - 1000.0 == pytest.approx(60.0)


@pytest.mark.parametrize(("used", "closed"), [(960, False), (961, True)])
async def test_most_of_the_minutes_weight_used_on_this_address_closes_until_the_next_minute(
    used: int, closed: bool
) -> None:
    time = FakeTime()
    of = budget(time, per_minute=1200)

    of.observe(used)
    await of.spend(1)

    assert bool(time.slept) is closed
    assert time.now - 1000.0 <= 60.0


class World:
    """A client of a server whose answers the test lines up."""

    def __init__(self, client: RestClient, time: FakeTime) -> None:
        self.client = client
        self.time = time
        self.requests: list[HttpRequest] = []

    async def get(self) -> bytes:
        return await self.client.get("/depth", {"symbol": "BTCUSDT", "limit": 100}, 5)

    async def seconds_closed(self) -> float:
        """How long the next request would have to wait."""
        before = self.time.now
        await self.client.budget.spend(1)
        return self.time.now - before


@asynccontextmanager
async def served(response: HttpResponse, timeout: float = 5.0) -> AsyncIterator[World]:
    async def handle(request: HttpRequest) -> HttpResponse:
        world.requests.append(request)
        return response

    async with client_of(handle, timeout) as world:
        yield world


@asynccontextmanager
async def client_of(
    handle: Callable[[HttpRequest], Awaitable[HttpResponse]], timeout: float = 5.0
) -> AsyncIterator[World]:
    server = HttpServer(handle)
    port = await server.start("127.0.0.1", 0)
    time = FakeTime()
    client = RestClient(f"http://127.0.0.1:{port}/", budget(time), timeout, "X-Used")
    try:
        yield World(client, time)
    finally:
        await client.close()
        await server.close()


async def test_an_answer_is_the_body_and_its_weight_is_spent() -> None:
    async with served(HttpResponse(200, b'{"a":1}')) as world:
        assert await world.get() == b'{"a":1}'

        (request,) = world.requests
        assert (request.path, request.query) == ("/depth", {"symbol": "BTCUSDT", "limit": "100"})
        assert "origin" not in request.headers
        assert world.client.budget.spent == 5


async def test_after_its_connections_were_closed_it_opens_others() -> None:
    async with served(HttpResponse(200, b"1")) as world:
        await world.get()
        await world.client.close()

        assert await world.get() == b"1"


async def test_a_request_may_have_less_patience_than_others() -> None:
    never = asyncio.Event()

    async def handle(_: HttpRequest) -> HttpResponse:
        await never.wait()
        return HttpResponse(200, b"late")

    async with client_of(handle, timeout=60.0) as world:
        with pytest.raises(RestError, match="TimeoutError"):
            await asyncio.wait_for(world.client.get("/depth", {}, 5, patience=0.05), 10)
        never.set()


async def test_the_address_of_a_request_is_told_as_it_was_sent() -> None:
    client = RestClient("https://api.example.com/", budget(FakeTime()))

    assert client.url("/depth", {"symbol": "BTCUSDT", "limit": 100}) == (
        "https://api.example.com/depth?symbol=BTCUSDT&limit=100"
    )
    assert client.url("/ping", {}) == "https://api.example.com/ping"
    await client.close()


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "17"}, 17.0), ({}, 60.0), ({"Retry-After": "²"}, 60), ({"Retry-After": "9" * 400}, 60)],
)
async def test_a_limit_closes_the_budget_for_as_long_as_the_exchange_says(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    async with served(HttpResponse(status, b"too much", headers)) as world:
        with pytest.raises(RestError, match=rf"HTTP {status}.*no request for {seconds:g} s: too much") as raised:
            await world.get()

        assert type(raised.value) is RestError
        assert await world.seconds_closed() == pytest.approx(seconds)


async def test_a_location_that_is_not_served_is_told_apart() -> None:
    async with served(HttpResponse(451, b"restricted location")) as world:
        with pytest.raises(RestBlockedError, match=r"HTTP 451.*--rest-url.*restricted location"):
            await world.get()


async def test_a_firewall_keeps_every_request_back_for_minutes() -> None:
    async with served(HttpResponse(403, b"<html>")) as world:
        with pytest.raises(RestError, match="HTTP 403") as raised:
            await world.get()

        assert type(raised.value) is RestError
        assert await world.seconds_closed() == pytest.approx(300.0)


async def test_a_refusal_of_this_request_leaves_the_others_free() -> None:
    async with served(HttpResponse(400, b'{"code":-1121,"msg":"Invalid symbol."}')) as world:
        with pytest.raises(RestRefusedError, match=r"HTTP 400.*Invalid symbol"):
            await world.get()

        assert await world.seconds_closed() == 0.0


@pytest.mark.parametrize("status", [500, 503, 999])
async def test_the_exchanges_own_trouble_may_pass(status: int) -> None:
    async with served(HttpResponse(status, b"trouble")) as world:
        with pytest.raises(RestError, match=f"HTTP {status}: trouble") as raised:
            await world.get()

        assert type(raised.value) is RestError
        assert await world.seconds_closed() == 0.0


async def test_an_error_shows_only_the_beginning_of_what_is_no_text() -> None:
    async with served(HttpResponse(500, b"\xff" * 100_000)) as world:
        with pytest.raises(RestError) as raised:
            await world.get()

        assert len(str(raised.value)) < 400


async def test_no_answer_in_time_says_so() -> None:
    async with served(HttpResponse(200, hang=30.0), timeout=0.05) as world:
        with pytest.raises(RestError, match=r"limit=100: \w+"):
            await world.get()


async def test_half_an_answer_is_none() -> None:
    async with served(HttpResponse(200, b"0123456789", cut=True)) as world:
        with pytest.raises(RestError):
            await world.get()


async def test_a_refused_connection_is_no_answer() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = RestClient(f"http://127.0.0.1:{port}", budget(FakeTime()))

    with pytest.raises(RestError, match=f"http://127.0.0.1:{port}/ping: .+"):
        await client.get("/ping", {}, 1)

    await client.close()


async def test_the_exchanges_own_count_of_used_weight_is_obeyed() -> None:
    async with served(HttpResponse(200, b"{}", {"X-Used": "1799"})) as world:
        await world.get()

        assert await world.seconds_closed() > 0.0


async def test_a_count_that_is_no_number_is_ignored() -> None:
    async with served(HttpResponse(200, b"{}", {"X-Used": "many"})) as world:
        assert await world.get() == b"{}"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr("bookbus.feeders.rest_client._LARGEST_BODY", 1_000_000)
    sent, ended = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        compressor = zlib.compressobj(wbits=31)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: %s\r\n\r\n" % encoding.encode())
        try:
            while sent < 500:
                block = b"x" * 100_000
                writer.write(compressor.compress(block) if encoding == "gzip" else block)
                await writer.drain()
                sent += 1
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = RestClient(f"http://127.0.0.1:{port}", budget(FakeTime()), 20.0)
    try:
        with pytest.raises(RestError, match="an answer of more than 1000000 bytes"):
            await client.get("/depth", {}, 1)
    finally:
        await client.close()
        await asyncio.wait_for(ended.wait(), 20)
        server.close()
        await server.wait_closed()


async def test_an_answer_of_the_largest_size_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookbus.feeders.rest_client._LARGEST_BODY", 1_000_000)
    async with served(HttpResponse(200, b"x" * 1_000_000)) as world:
        assert len(await world.get()) == 1_000_000


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        (429, "999999999", 3600.0),
        (429, "9" * 200, 3600.0),
        (429, "3601", 3600.0),
        (429, "30", 30.0),
        (418, "999999999", 259_200.0),
        (418, "7200", 7200.0),
        (429, "-5", 60.0),
        (429, "1e9", 60.0),
        (418, "soon", 60.0),
    ],
)
async def test_a_wait_that_an_exchange_asks_for_has_a_limit(status: int, retry_after: str, seconds: float) -> None:
    async with served(HttpResponse(status, b"", headers={"Retry-After": retry_after})) as world:
        with pytest.raises(RestError, match="limit exceeded"):
            await world.get()

        assert await world.seconds_closed() == pytest.approx(seconds, rel=1e-3)
