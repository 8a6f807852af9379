"""One connection to Redis, against a peer that says what the test says."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hiredis
import pytest

from bookbus.consumers.bus.connection import BusConnection, BusConnectionError
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.schemas.redis_url import Login, RedisServer

SESAME = "open sesame"
WELCOME = b"-ERR unknown command 'CLIENT'\r\n+PONG\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        yield server


class Ends:
    """Both ends of one connection."""

    def __init__(self, server: socket.socket, **login: object) -> None:
        address = RedisServer("", "", 0, server.getsockname(), Login(**login))  # type: ignore[arg-type]
        self.link = BusConnection(address, "me")
        self.peer = server.accept()[0]

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        self.peer.close()

    def sent(self) -> list[list[bytes]]:
        """The commands that came at the other end."""
        parser = hiredis.Reader()
        parser.feed(self.peer.recv(100_000))
        return list(iter(parser.gets, False))

    def answer(self, data: bytes) -> None:
        self.peer.sendall(data)
        self.link.receive()


def test_it_logs_in_selects_and_names_itself(server: socket.socket) -> None:
    with Ends(server, username="u", password=SESAME, database=3) as ends:
        assert ends.sent() == [
            [b"AUTH", b"u", SESAME.encode()],
            [b"SELECT", b"3"],
            [b"CLIENT", b"SETNAME", b"me"],
            [b"PING"],
        ]
        assert not ends.link.authenticated()

        ends.answer(b"+OK\r\n+OK\r\n+OK\r\n+PO")
        assert not ends.link.authenticated()

        ends.answer(b"NG\r\n$1\r\nx\r\n")
        assert ends.link.authenticated()
        assert ends.link.gets() == b"x"


def test_a_name_that_is_refused_does_not_matter(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.answer(WELCOME)

        assert ends.link.authenticated()


def test_a_login_that_is_refused_is_told(server: socket.socket) -> None:
    with Ends(server, password=SESAME) as ends:
        ends.answer(b"-WRONGPASS invalid\r\n")

        with pytest.raises(BusConnectionError, match="refuses this user name and password"):
            ends.link.authenticated()


def test_nothing_there_yet_is_no_error(server: socket.socket) -> None:
    with Ends(server) as ends:
        assert ends.link.receive() is False


def test_a_full_chunk_says_that_there_may_be_more(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.peer.sendall(b"+" + b"x" * 70_000)

        assert ends.link.receive() is True
        assert ends.link.receive() is False


def test_a_closed_connection_is_told(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.peer.close()

        with pytest.raises(BusConnectionError, match=r"closed the connection|lost"):
            ends.link.receive()


def test_a_reply_without_end_is_not_collected_without_end(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.answer(WELCOME + b"$500000000\r\n")
        assert ends.link.authenticated()
        sent = 0

        def flood() -> None:
            nonlocal sent
            while sent < 64 * 2**20:
                ends.peer.sendall(b"x" * 60_000)
                sent += 60_000
                ends.link.receive()
                assert ends.link.gets() is False

        with pytest.raises(BusConnectionError, match="a reply of more than"):
            flood()
        assert sent < 20 * 2**20


def test_questions_are_answered_in_order_errors_among_them(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.peer.sendall(WELCOME + b":1\r\n-ERR no\r\n$-1\r\n")

        one, error, nothing = ends.link.ask([("A",), ("B", 2), ("C", b"\xff")], 1.0)

        assert (one, str(error), nothing) == (1, "ERR no", None)
        assert ends.sent()[2:] == [[b"A"], [b"B", b"2"], [b"C", b"\xff"]]


def test_a_question_is_not_waited_for_longer_than_asked(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.peer.sendall(WELCOME)
        began = time.monotonic()

        with pytest.raises(BusConnectionError, match="timed out"):
            ends.link.ask([("A",)], 0.05)
        assert 0.04 < time.monotonic() - began < 2


def test_commands_nobody_takes_do_not_block_for_ever(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookbus.consumers.bus.connection._SEND_LIMIT", 0.05)
    with Ends(server) as ends, pytest.raises(BusConnectionError, match="timed out"):
        ends.link.send([("SET", b"x" * 10_000_000)])


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_what_is_no_redis_is_told(mode: Mode) -> None:
    def answer() -> None:
        peers = [server.accept()[0] for _ in range(connections)]
        for peer in peers:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        said.wait(5)
        for peer in peers:
            peer.close()

    connections, said = (2 if mode == "push" else 1), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(BusConnectionError, match=f"what answers at {url} is no Redis"):
            RedisMarketDataProvider(url, "binance", ["BTC"], mode).start()
        said.set()
        answering.join()
