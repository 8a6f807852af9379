"""Who reads, and who of them does not keep up: from a registry and a list of clients."""

from io import StringIO

import pytest
from rich.console import Console

from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.reader import ConsumerIdentity, consumer_fields
from bookbus.consumers.bus.readers import (
    ListedClient,
    Reader,
    ReaderState,
    Registry,
    parse_clients,
    readers_of,
)
from bookbus.consumers.commands.list import table_of
from bookbus.schemas.heartbeat import ReaderRecord, parse_reader
from bookbus.schemas.redis_names import RedisNames
from tests.support.documents import column

NAME = "bookbus:host-7-abc"
CLIENT_LIST = (
    b"id=3 addr=127.0.0.1:1000 laddr=127.0.0.1:6379 fd=8 name=bookbus:host-7-abc age=61 idle=1 flags=P db=0 "
    b"sub=3 psub=1 ssub=2 multi=-1 qbuf=26 qbuf-free=20448 argv-mem=10 obl=0 oll=4 omem=81920 events=r cmd=ping "
    b"user=runner redir=-1\n"
    b"id=4 addr=/run/socket=x:0 name= age=5 idle=0 sub=0 psub=0 qbuf=0 omem=0 cmd=client user=default\n"
)


def client(name: str = NAME, **fields: int | str) -> ListedClient:
    usual = {"address": "127.0.0.1:1", "user": "u", "subscriptions": 2, "unsent": 0, "unread": 0, "age": 60, "idle": 0}
    return ListedClient(name=name, **(usual | fields))  # type: ignore[arg-type]


def record(name: str = NAME, lag: float | None = 0.001) -> ReaderRecord:
    return ReaderRecord(client=name, exchange="binance", symbols=("BTC-USDT",), lag=lag, received=7)


def only(*clients: ListedClient, records: tuple[ReaderRecord, ...] | None = (record(),)) -> Reader:
    (reader,) = readers_of(Registry(records, clients))
    return reader


def test_a_line_of_the_servers_list_is_one_client() -> None:
    assert parse_clients(CLIENT_LIST) == (
        ListedClient(
            name=NAME, address="127.0.0.1:1000", user="runner", subscriptions=6, unsent=81920, unread=26, age=61, idle=1
        ),
        ListedClient(
            name="", address="/run/socket=x:0", user="default", subscriptions=0, unsent=0, unread=0, age=5, idle=0
        ),
    )


def test_what_a_reader_told_is_read_back() -> None:
    identity = ConsumerIdentity("host", 7, "abc")
    table = BusTable("binance", RedisNames())
    table.add([table.book("BTC-USDT"), table.book("ETH-USDT")])
    fields = consumer_fields(identity, table, 0.0123, None, 2)

    told = parse_reader(identity.id, [text.encode() for field in fields.items() for text in field])

    assert told == ReaderRecord(
        client=NAME,
        exchange="binance",
        symbols=("BTC-USDT", "ETH-USDT"),
        lag=0.0123,
        received=0,
        conflated=0,
        missed=0,
        reconnects=2,
        host="host",
        pid=7,
        version=fields["version"],
    )


def test_every_field_that_a_reader_tells_is_documented() -> None:
    table = BusTable("binance", RedisNames())

    told = consumer_fields(ConsumerIdentity(), table, 0.0, None, 0)

    assert column("docs/reference/counters.md", "field | column |") == list(told)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1" * 5000, b"\xff", "٣".encode()])
def test_figures_that_are_none_are_unknown(value: bytes) -> None:
    told = parse_reader("x", [b"received", value, b"pid", value])

    assert (told.received, told.pid, told.missed) == (None, None, None)


def test_what_others_wrote_does_nothing_to_a_terminal() -> None:
    told = parse_reader("x", [b"host", b"\x1b[2J\nroot\xff", b"symbols", b"\x1b]0;y BTC-USDT", b"odd"])

    assert (told.host, told.symbols) == ("?[2J?root\ufffd", ("?]0;y", "BTC-USDT"))


def test_a_reader_is_joined_with_its_connections() -> None:
    reader = only(client(subscriptions=5, idle=1, age=60), client(subscriptions=0, unread=9, age=61))

    assert (reader.name, reader.record, reader.state, reader.reason) == ("host-7-abc", record(), ReaderState.OK, "")
    assert (reader.subscriptions, reader.unread, reader.age, reader.idle) == (5, 9, 61, 1)


def test_a_reader_that_asks_nothing_any_more_is_stopped_though_messages_still_go_to_it() -> None:
    reader = only(client(idle=0), client(subscriptions=0, idle=42), records=())

    assert (reader.state, reader.reason) == (ReaderState.STOPPED, "no sign of life for 42 s")


def test_a_stopped_reader_without_subscriptions_was_cut_off() -> None:
    reader = only(client(subscriptions=0, idle=42), records=())

    assert reader.reason == "no sign of life for 42 s; the server cut it off"


def test_a_reader_with_much_to_be_sent_is_slow() -> None:
    reader = only(client(unsent=1_300_000))

    assert (reader.state, reader.reason) == (ReaderState.SLOW, "1.3 MB wait for it at the server")


def test_a_reader_that_is_behind_is_slow_also_where_the_servers_view_is_hidden() -> None:
    (reader,) = readers_of(Registry((record(lag=1.5),), None))

    assert (reader.state, reader.reason) == (ReaderState.SLOW, "1.5 s behind")
    assert (reader.subscriptions, reader.idle, reader.address) == (None, None, None)


def test_a_reader_without_a_connection_is_unknown() -> None:
    assert only().state is ReaderState.UNKNOWN


def test_other_programs_are_readers_if_they_subscribe_and_may_be_idle() -> None:
    readers = readers_of(
        Registry(
            None,
            (
                client("", address="10.0.0.1:5", idle=500),
                client("bot", address="10.0.0.2:6", idle=500),
                client("bot", address="10.0.0.3:7", unsent=100_000),
                client("bookbus-poller", subscriptions=0),
            ),
        )
    )

    assert [(reader.name, reader.state) for reader in readers] == [
        ("bot 10.0.0.3:7", ReaderState.SLOW),
        ("10.0.0.1:5", ReaderState.OK),
        ("bot 10.0.0.2:6", ReaderState.OK),
    ]


def test_those_in_trouble_come_first() -> None:
    clients = (
        client("bookbus:a"),
        client("bookbus:b", unsent=10**6),
        client("bookbus:c", idle=9),
        client("bookbus:d", idle=9),
    )

    assert [reader.name for reader in readers_of(Registry((), clients))] == ["c", "d", "b", "a"]


def test_a_row_says_who_what_and_how_it_stands() -> None:
    told = ReaderRecord(
        client=NAME,
        exchange="binance",
        symbols=("BTC-USDT", "ETH-USDT", "XRP-USDT", "ADA-USDT"),
        lag=0.0015,
        received=1234,
        conflated=1200,
        missed=3,
        reconnects=1,
    )
    out = StringIO()

    Console(file=out, width=300).print(table_of(readers_of(Registry((told,), (client(unsent=70_000, age=9000),)))))

    (row,) = [line.split() for line in out.getvalue().splitlines() if "host-7-abc" in line]
    assert row == [
        *("host-7-abc", "binance", "BTC-USDT,ETH-USDT,XRP-USDT", "+1", "1.5", "ms", "-", "1,234", "1,200", "3", "1"),
        *("2", "70", "kB", "0", "B", "2", "h", "0", "s", "slow:", "0.1", "MB", "wait", "for", "it", "at", "the"),
        "server",
    ]
