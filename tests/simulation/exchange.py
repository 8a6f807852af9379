"""A model of an exchange that speaks Binance's protocol: its books, trades, restarts, quiet and busy times.

Every book that was ever true has a version number, which is the quantity of its best bid: from a book anywhere in the
system one can tell how long ago it was the exchange's.
"""

import json
from collections.abc import Iterable
from typing import Any

from tests.simulation.world import Clock, Connection, Listener, Process, World

LEVELS = 22
"""Levels a side; a depth answer of 100 shows the side's end."""

PING, PONG = "ping", "pong"
RATES = {"busy": 0.15, "calm": 0.9, "quiet": 7.0}
"""Mean seconds between two changes of a book."""


class Market:
    """One symbol: the true book over time."""

    def __init__(self, native: str, touch: float) -> None:
        self.native = native
        self.touch = touch
        """The best bid, which tells the exchanges apart."""
        self.version = 1
        self.update_id = 1000
        self.trade_id = 500
        self.since: list[float] = [0.0, 0.0]
        """By version: the time from which it was the true book."""
        self.ids: list[int] = [0, 1000]
        """By version: its update id."""
        self.next_change = 0.0

    def replaced_at(self, version: int) -> float:
        """When this book stopped being the true one."""
        return self.since[version + 1] if version + 1 < len(self.since) else float("inf")

    def bids(self, levels: int, version: int) -> list[tuple[float, float]]:
        """The book of a version; asks mirror it. Each change moves the best level and one of the next three."""
        return [(self.touch - place, _quantity(place, version)) for place in range(min(levels, LEVELS))]

    def sides(self, places: Iterable[int]) -> tuple[list[list[str]], list[list[str]]]:
        """The true levels at these places, best first, as the exchange writes them."""
        quantities = [(place, f"{_quantity(place, self.version)}") for place in places]
        bids = [[f"{self.touch - place}", quantity] for place, quantity in quantities]
        return bids, [[f"{self.touch + 1 + place}", quantity] for place, quantity in quantities]


def _quantity(place: int, version: int) -> float:
    if place == 0:
        return float(version)
    if place > 3:
        return 1.0
    return float(max(version - (version - place + 1) % 3, 1))


class Exchange(Listener):
    """All of it: WebSocket connections and depth requests. Its clock is right."""

    def __init__(self, world: World, host: str, natives: list[str], touch: float, start_id: int) -> None:
        super().__init__(world, host, Clock(world))
        self.markets = {native: Market(native, touch + 500 * place) for place, native in enumerate(natives)}
        self.rate = "busy"
        self.stalled: set[str] = set()
        """Hosts whose connections get no data, but pongs."""
        self._losing = ""
        self.trades_sent: dict[str, list[int]] = {native: [] for native in natives}
        self._sockets: list[_Socket] = []
        for market in self.markets.values():
            market.update_id = start_id
            market.ids[1] = start_id
            self._plan(market)

    def accept(self, connection: Connection, peer: Process) -> None:
        socket = _Socket(self, connection, peer.host)
        self._sockets.append(socket)
        connection.receive = socket.receive

    def leave(self, socket: "_Socket") -> None:
        self._sockets = [one for one in self._sockets if one is not socket]

    def set_rate(self, rate: str) -> None:
        self.rate = rate
        for market in self.markets.values():
            self._plan(market)

    def disconnect(self, host: str) -> None:
        for socket in [one for one in self._sockets if host in ("*", one.host)]:
            socket.connection.close()
            self.leave(socket)

    def lose_a_message(self, host: str) -> None:
        """One change of each book is never sent to this host, but the next one is: a gap."""
        for market in self.markets.values():
            self._losing = host
            self._change(market)
            self._losing = ""
            self._change(market)

    def restart_ids(self, back: int) -> None:
        """Maintenance: every connection ends, and ids go on `back` lower, with another book."""
        self.disconnect("*")
        for market in self.markets.values():
            market.update_id = max(market.update_id - back, 1)
            self._change(market)

    def depth(self, native: str, limit: int) -> bytes:
        market = self.markets[native]
        bids, asks = market.sides(range(min(limit, LEVELS)))
        return json.dumps({"lastUpdateId": market.update_id, "bids": bids, "asks": asks}).encode()

    def best_prices(self) -> bytes:
        return json.dumps(
            [
                {"symbol": native, "bidPrice": f"{market.touch}", "askPrice": f"{market.touch + 1}"}
                for native, market in self.markets.items()
            ]
        ).encode()

    def _plan(self, market: Market) -> None:
        market.next_change = at = self.world.now + self.world.rng.expovariate(1 / RATES[self.rate])

        def change() -> None:
            if market.next_change == at:
                self._change(market)
                if self.world.rng.random() < 0.3:
                    self._trade(market)
                self._plan(market)

        self.world.at(at, change)

    def _change(self, market: Market) -> None:
        first = market.update_id + 1
        market.update_id += self.world.rng.randint(1, 3)
        market.version += 1
        market.since.append(self.world.now)
        market.ids.append(market.update_id)
        name = market.native.lower()
        bids, asks = market.sides((0, 1 + market.version % 3))
        diff = {"e": "depthUpdate", "E": self._ms(), "s": market.native, "U": first, "u": market.update_id}
        self._send(f"{name}@depth@100ms", diff | {"b": bids, "a": asks})
        for depth in (5, 10, 20):
            self._send(f"{name}@depth{depth}@100ms", self._partial(market, depth))

    def _trade(self, market: Market) -> None:
        market.trade_id += 1
        self.trades_sent[market.native].append(market.trade_id)
        trade = {"e": "trade", "E": self._ms(), "s": market.native, "t": market.trade_id, "T": self._ms(), "m": False}
        self._send(f"{market.native.lower()}@trade", trade | {"p": f"{market.touch}", "q": "1.0"})

    def _partial(self, market: Market, depth: int) -> dict[str, Any]:
        bids, asks = market.sides(range(min(depth, LEVELS)))
        return {"lastUpdateId": market.update_id, "bids": bids, "asks": asks}

    def _ms(self) -> int:
        return int(self.clock.wall() * 1000)

    def _send(self, stream: str, data: dict[str, Any]) -> None:
        listeners = [socket for socket in self._sockets if stream in socket.streams]
        if not listeners:
            return
        frame = json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()
        for socket in listeners:
            if socket.host not in self.stalled | {self._losing}:
                socket.connection.send(frame)

    def first_book(self, stream: str) -> bytes | None:
        """What a new subscription of whole books begins with."""
        name, _, kind = stream.partition("@")
        depth = kind.partition("@")[0].removeprefix("depth")
        if not depth.isdigit():
            return None
        data = self._partial(self.markets[name.upper()], int(depth))
        return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


class _Socket:
    """One WebSocket connection, at the exchange's side."""

    def __init__(self, exchange: Exchange, connection: Connection, host: str) -> None:
        self.connection = connection
        self.host = host
        self.streams: set[str] = set()
        self._exchange = exchange

    def receive(self, message: Any) -> None:
        if message is None:
            self._exchange.leave(self)
        elif message == PING:
            self.connection.send(PONG)
        elif isinstance(message, tuple):
            self.connection.send(self._answer(message[0], message[1]))
        else:
            self._subscribe(json.loads(message))

    def _answer(self, path: str, parameters: dict[str, Any]) -> bytes:
        """A request's answer: requests use connections of the same kind."""
        if path.endswith("/depth"):
            return self._exchange.depth(parameters["symbol"], parameters["limit"])
        return self._exchange.best_prices()

    def _subscribe(self, request: dict[str, Any]) -> None:
        self.connection.send(json.dumps({"result": None, "id": request["id"]}).encode())
        for stream in request["params"]:
            self.streams.add(stream)
            first = self._exchange.first_book(stream)
            if first is not None and self.host not in self._exchange.stalled:
                self.connection.send(first)
