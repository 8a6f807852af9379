"""Binance's control messages and REST weight as the simulator plays them, without sockets."""

import json

import pytest

from bookbus.feeders.simulator.binance.messages import ControlSession, is_stream
from bookbus.feeders.simulator.binance.rest import RequestWeight, WeightVerdict
from bookbus.feeders.simulator.binance.settings import BinanceRules, BinanceSettings, ErrorShape


def session(error_shape: ErrorShape = "nested", *, combined: bool = True, streams: int = 1024) -> ControlSession:
    return ControlSession(BinanceRules(streams=streams), error_shape, combined)


def ask(to: ControlSession, message: object) -> object:
    reply = to.receive(json.dumps(message) if not isinstance(message, str) else message)
    return None if reply is None else json.loads(reply)


def test_subscriptions_add_up_and_are_listed() -> None:
    client = session()

    assert ask(client, {"method": "SUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": 1}) == {"result": None, "id": 1}
    assert ask(client, {"method": "SUBSCRIBE", "params": ["ethusdt@bookTicker"], "id": "b"}) == {
        "result": None,
        "id": "b",
    }
    assert ask(client, {"method": "UNSUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": None}) == {
        "result": None,
        "id": None,
    }
    assert ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 3}) == {"result": ["ethusdt@bookTicker"], "id": 3}


def test_replies_keep_the_order_of_their_fields() -> None:
    reply = session().receive('{"method":"SUBSCRIBE","params":[],"id":7}')

    assert reply == '{"result":null,"id":7}'


@pytest.mark.parametrize("combined", [True, False])
def test_the_combined_property_begins_as_the_path_says_and_can_be_changed(combined: bool) -> None:
    client = session(combined=combined)

    assert ask(client, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1}) == {"result": combined, "id": 1}
    ask(client, {"method": "SET_PROPERTY", "params": ["combined", not combined], "id": 2})
    assert client.combined is not combined


@pytest.mark.parametrize("request_id", [1, -1, None, "abc1", "0b1f4e3a-8f3e-4c57-9d55-0f2b4a9c1d2e"])
def test_a_request_id_is_a_number_a_text_or_a_uuid(request_id: object) -> None:
    assert ask(session(), {"method": "SUBSCRIBE", "params": [], "id": request_id}) == {"result": None, "id": request_id}


UNKNOWN_METHOD = (
    "Invalid request: unknown variant `JOIN`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, "
    "`SET_PROPERTY`, `GET_PROPERTY` at line 1 column 28"
)
ERRORS = [
    ({"method": "SET_PROPERTY", "params": ["colour", True], "id": 1}, 0, "Unknown property"),
    ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "Invalid value type: expected Boolean"),
    ({"method": "SET_PROPERTY", "params": ["combined"], "id": 1}, 1, "Invalid value type: expected Boolean"),
    ({"method": "GET_PROPERTY", "params": [1], "id": 1}, 2, "Invalid request: property name must be a string"),
    ({"method": "GET_PROPERTY", "id": 1}, 2, "Invalid request: property name must be a string"),
    ({"method": "GET_PROPERTY", "params": ["combined", 1], "id": 1}, 2, "Invalid request: too many parameters"),
    ({"method": "SUBSCRIBE", "params": ["btcusdt"], "id": 1}, 2, "Invalid request: invalid stream"),
    ({"method": "SUBSCRIBE", "params": [1], "id": 1}, 2, "Invalid request: invalid stream"),
    ({"method": "JOIN", "id": 1}, 2, UNKNOWN_METHOD),
    ({"id": 1}, 2, "Invalid request: missing field `method` at line 1 column 73"),
    ({"method": "SUBSCRIBE", "params": []}, 2, "Invalid request: request ID must be an unsigned integer"),
    (
        {"method": "SUBSCRIBE", "params": [], "id": "a_b"},
        2,
        "Invalid request: request ID must be an unsigned integer",
    ),
    ("{", 3, "Invalid JSON: expected value at line 1 column 1"),
]


@pytest.mark.parametrize(("message", "code", "text"), ERRORS)
def test_errors_are_nested_by_default_and_flat_by_option(message: object, code: int, text: str) -> None:
    request_id = {"id": message["id"]} if isinstance(message, dict) and "id" in message else {}

    assert ask(session(), message) == {"error": {"code": code, "msg": text}} | request_id
    assert ask(session("flat"), message) == {"code": code, "msg": text} | request_id


def test_a_message_of_more_than_4088_bytes_is_ignored() -> None:
    client = session()
    message = '{"method":"SUBSCRIBE","params":[],"id":1}'

    assert client.receive(message.ljust(4088)) is not None
    assert client.receive(message.ljust(4089)) is None


def test_streams_beyond_the_limit_are_refused_all_together() -> None:
    client = session(streams=2)
    ask(client, {"method": "SUBSCRIBE", "params": ["a@depth"], "id": 1})

    reply = client.receive('{"method":"SUBSCRIBE","params":["b@depth","c@depth"],"id":2}')

    assert reply is not None
    assert json.loads(reply)["error"]["code"] == 2
    assert list(client.streams) == ["a@depth"]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("btcusdt@depth", True),
        ("btcusdt@depth20@100ms", True),
        ("BTCUSDT@depth@100ms", True),
        ("币安人生usdt@bookTicker", True),
        ("btcusdt@kline_1m", True),
        ("!miniTicker@arr", True),
        ("!miniTicker@arr@1000ms", True),
        ("!miniTicker@arr@500ms", False),
        ("btcusdt@depth7", False),
        ("btcusdt@depth@50ms", False),
        ("btcusdt", False),
        ("", False),
    ],
)
def test_a_stream_needs_a_known_type_but_no_known_symbol(name: str, accepted: bool) -> None:
    assert is_stream(name) is accepted


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_weight_is_used_up_then_refused_then_banned_then_free_again() -> None:
    clock = Clock()
    weight = RequestWeight(BinanceRules(weight=300, requests_until_ban=2), clock)

    assert weight.charge(250) == WeightVerdict(200, 0)
    assert weight.charge(50) == WeightVerdict(200, 0)
    clock.now += 20.5
    assert weight.charge(1) == WeightVerdict(429, 40)
    assert weight.charge(1) == WeightVerdict(429, 40)
    assert weight.charge(1) == WeightVerdict(418, 120)
    clock.now += 60
    assert weight.charge(1) == WeightVerdict(418, 120)  # asking again prolongs it
    clock.now += 121
    assert weight.charge(1) == WeightVerdict(200, 0)
    assert (weight.used, weight.highest) == (1, 303)


def test_time_left_of_a_ban_is_not_rounded_up_for_a_rounding_error() -> None:
    clock = Clock()
    clock.now = 214.21
    weight = RequestWeight(BinanceRules(weight=1, requests_until_ban=0, ban=120.0), clock)

    assert clock.now + 120.0 - clock.now > 120.0
    assert weight.charge(2) == WeightVerdict(418, 120)


def test_a_new_minute_brings_new_weight() -> None:
    clock = Clock()
    weight = RequestWeight(BinanceRules(weight=100), clock)
    weight.charge(90)

    clock.now += 60

    assert weight.used == 0
    assert weight.charge(90) == WeightVerdict(200, 0)


def test_rules_run_on_a_faster_clock() -> None:
    rules = BinanceRules().scaled(100)

    assert (rules.ping_interval, rules.pong_timeout, rules.lifetime) == (0.2, 0.6, 864)
    assert (rules.frames, rules.streams, rules.weight) == (5, 1024, 6000)


@pytest.mark.parametrize(
    "options",
    [{"rate": 11.0}, {"rate": -1.0}, {"changes": 0}, {"truth_depth": 5}, {"levels": 10}, {"truth_flushes": 1}],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BinanceSettings(**options)  # type: ignore[arg-type]
