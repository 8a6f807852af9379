"""The proxy between a client and a server that echoes: each fault does what it says, until switched off."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bookbus.feeders.commands.proxy import GOOD, Network, Proxy

LIMIT = 5.0


@asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), LIMIT)


async def test_a_good_network_carries_everything_both_ways() -> None:
    data = bytes(range(256)) * 4000
    async with echoing() as proxy, client(proxy) as ends:
        assert await answer(*ends, data) == data
        assert proxy.connects == 1


async def test_latency_and_jitter_delay_what_passes_and_keep_its_order() -> None:
    async with echoing() as proxy, client(proxy) as (reader, writer):
        await proxy.change(Network(latency=0.05, jitter=0.05))
        started = time.monotonic()
        for number in range(20):
            writer.write(b"%02d" % number)
            await asyncio.sleep(0)
        data = await asyncio.wait_for(reader.readexactly(40), LIMIT)

        assert time.monotonic() - started >= 0.1
        assert data == b"".join(b"%02d" % number for number in range(20))


async def test_a_slow_drip_takes_as_long_as_the_bytes_need() -> None:
    async with echoing() as proxy, client(proxy) as ends:
        await proxy.change(Network(bytes_a_second=5000))
        started = time.monotonic()

        assert await answer(*ends, b"x" * 1000) == b"x" * 1000
        assert time.monotonic() - started >= 0.15


async def test_a_cut_ends_connections_and_lets_nobody_in_until_it_is_over() -> None:
    async with echoing() as proxy:
        async with client(proxy) as (reader, writer):
            assert await answer(reader, writer, b"hello") == b"hello"
            await proxy.change(Network(cut=True))
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), LIMIT)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", proxy.port)
        port = proxy.port
        await proxy.change(GOOD)

        assert proxy.port == port
        async with client(proxy) as ends:
            assert await answer(*ends, b"hello") == b"hello"


async def test_a_half_open_way_accepts_and_swallows_and_ends_what_lost_bytes() -> None:
    async with echoing() as proxy, client(proxy) as old, client(proxy) as idle:
        assert await answer(*old, b"before") == b"before"
        assert await answer(*idle, b"before") == b"before"
        await proxy.change(Network(half_open=True))
        async with client(proxy) as new:
            new[1].write(b"lost")
            old[1].write(b"lost")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(new[0].readexactly(1), 0.1)
            await proxy.change(GOOD)
            for reader, _ in (old, new):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(reader.readexactly(1), LIMIT)

            assert await answer(*idle, b"goes on") == b"goes on"


async def test_a_reset_in_the_middle_of_a_message_gives_half_of_it() -> None:
    async with echoing() as proxy, client(proxy) as (reader, writer):
        proxy.reset_mid_frame()
        writer.write(b"12345678")

        assert await asyncio.wait_for(reader.readexactly(4), LIMIT) == b"1234"
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readexactly(1), LIMIT)


def test_a_network_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be below zero"):
        Network(latency=-1.0)
