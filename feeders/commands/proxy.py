"""`proxy`: a TCP proxy that adds network faults between a client and Redis or an exchange."""

import asyncio
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec
import typer

from bookbus.feeders.commands.options import LogLevel, fail, run_until_signal, start_logging
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, HttpServer, json_response
from bookbus.feeders.simulator.proxy import Network, Proxy

_DEFAULT_PORTS = {"redis": 6379, "ws": 80, "http": 80, "wss": 443, "https": 443}
_ENCRYPTED = ("rediss", "wss", "https")


def proxy(
    target: Annotated[str, typer.Argument(help="Address to forward to: HOST:PORT, or a URL.")],
    host: Annotated[str, typer.Option(envvar="BOOKBUS_PROXY_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BOOKBUS_PROXY_PORT", help="For clients; 0 takes a free one.")] = 0,
    control_port: Annotated[
        int, typer.Option(envvar="BOOKBUS_PROXY_CONTROL_PORT", help="For control; 0 takes a free one.")
    ] = 0,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="The same seed gives the same jitter.")] = 1,
    log_level: LogLevel = "warning",
) -> None:
    """A TCP proxy that adds delay, slowness, loss or cuts, controlled while it runs.

    When it is ready it prints one line of JSON with its addresses; let a feeder or a reader connect there instead.
    Times are in seconds; each POST to /control/network replaces all settings. Ctrl-C stops it.

    \b
      python -m feeders proxy redis://127.0.0.1:6379/0 --port 6390 --control-port 6391
      curl -d '{"latency":0.1,"jitter":0.05}' 127.0.0.1:6391/control/network     delay, each way
      curl -d '{"bytes_a_second":20000}' 127.0.0.1:6391/control/network          slow drip
      curl -d '{"half_open":true}' 127.0.0.1:6391/control/network                accepts, and discards everything
      curl -d '{"cut":true}' 127.0.0.1:6391/control/network                      ends connections, accepts none
      curl -d '{}' 127.0.0.1:6391/control/network                                no faults
      curl -X POST 127.0.0.1:6391/control/reset                                  half a message, then a TCP reset
      curl 127.0.0.1:6391/control/network                                        the settings now
    """
    start_logging(log_level)
    url = _target(target)
    try:
        run_until_signal(_serve(url, host, port, control_port, seed))
    except OSError as error:
        fail(f"cannot listen on {host}: {error.strerror or error}")


def _target(text: str) -> SplitResult:
    """Parse a target; the result has a host and a port. Ends the program with an error if it is not valid."""
    url = urlsplit(text if "://" in text else f"tcp://{text}")
    try:
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError as error:
        fail(f"{text}: {error}")
    if not url.hostname or port is None:
        fail(f"{text}: name the target as HOST:PORT or as a URL, for example redis://127.0.0.1:6379/0")
    if url.scheme in _ENCRYPTED:
        fail(f"{text}: an encrypted connection would be refused here, for its certificate names another host")
    return url._replace(netloc=f"{url.hostname}:{port}")


async def _serve(url: SplitResult, host: str, port: int, control_port: int, seed: int) -> None:
    assert url.hostname is not None and url.port is not None  # noqa: S101, PT018 - checked before
    async with Proxy(url.hostname, url.port, host=host, port=port, seed=seed) as forwarding:
        control = HttpServer(_Control(forwarding).answer)
        control_port = await control.start(host, control_port)
        try:
            ready = {"address": f"{host}:{forwarding.port}", "control_url": f"http://{host}:{control_port}"}
            if url.scheme != "tcp":
                ready["url"] = url._replace(netloc=ready["address"]).geturl()
            typer.echo(msgspec.json.encode(ready).decode())
            await asyncio.Event().wait()
        finally:
            await control.close()


class _Control:
    """The HTTP endpoint that controls one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def answer(self, request: HttpRequest) -> HttpResponse:
        match request.method, request.path:
            case "GET", "/control/network":
                return json_response({"network": self._proxy.network, "connects": self._proxy.connects})
            case "POST", "/control/network":
                try:
                    await self._proxy.change(msgspec.json.decode(request.body, type=Network))
                except (ValueError, msgspec.MsgspecError) as error:
                    return json_response({"error": str(error)}, 400)
                return json_response({"ok": True})
            case "POST", "/control/reset":
                self._proxy.reset_mid_frame()
                return json_response({"ok": True})
        return json_response({"error": "known: GET and POST /control/network, POST /control/reset"}, 404)
