"""Faults that strike one Binance connection the moment they are asked for."""

import time
from collections.abc import Callable

from feeders.simulator.background import Background
from feeders.simulator.binance_messages import server_shutdown
from feeders.simulator.binance_streams import Subscriber
from feeders.simulator.connection import encode_frame
from feeders.simulator.faults import Fault

Close = Callable[[Subscriber, int, str], None]

_GOING_AWAY = 1001
_NO_CLOSING_FRAME = 1006
_SLOW = 2000.0
"""Bytes a second, unless the fault says how many."""


def strike(subscriber: Subscriber, fault: Fault, background: Background, close: Close) -> None:
    """Play `fault` on this connection; with `seconds`, silence and slowness end by themselves."""
    connection = subscriber.connection
    match fault.kind:
        case "silence":
            connection.fall_silent(answers_pings=fault.value != "no pongs")
        case "half_open":
            connection.become_half_open()
        case "slow_drip":
            connection.slow_down(fault.number(_SLOW))
        case "reset":
            connection.reset()
        case "close" if fault.number(1000) == _NO_CLOSING_FRAME:
            connection.drop()
        case "close":
            close(subscriber, int(fault.number(1000)), "")
        case "server_shutdown":
            _announce_shutdown(subscriber, fault.number(0.0), background, close)
    if fault.seconds is not None:
        background.call_later(fault.seconds, connection.recover)


def _announce_shutdown(subscriber: Subscriber, lead: float, background: Background, close: Close) -> None:
    text = server_shutdown(time.time_ns() // 1_000_000, combined=subscriber.session.combined)
    subscriber.connection.queue(encode_frame(text.encode()))
    subscriber.connection.send_queued()
    background.call_later(lead, lambda: close(subscriber, _GOING_AWAY, ""))
