"""unicorn-binance-local-depth-cache: its depth caches."""

import os
import time

from report import Report
from unicorn_binance_local_depth_cache import BinanceLocalDepthCacheManager
from unicorn_binance_rest_api import BinanceRestApiManager


def local_rest(report: Report) -> BinanceRestApiManager:
    """The package's REST manager with the local address, which its constructor sets and already sends a request to."""

    class LocalRestManager(BinanceRestApiManager):
        API_URL = property(lambda _: f"{report.rest_url}/api", lambda _, __: None)

    return LocalRestManager(exchange="binance.com", warn_on_update=False)


def main(report: Report) -> None:
    manager = BinanceLocalDepthCacheManager(
        exchange="binance.com",
        depth_cache_update_interval=100,
        init_interval=0.5,
        warn_on_update=False,
        ubra_manager=local_rest(report),
    )
    manager.ubwa.websocket_base_uri = f"{report.ws_url}/"
    manager.create_depthcache(report.symbols)
    deadline = time.monotonic() + 40
    while not report.complete and time.monotonic() < deadline:
        for symbol in report.symbols:
            cache = manager.depth_caches[symbol.lower()]
            if not cache["is_synchronized"]:
                continue
            # The package's thread changes the book while it is read: only one whose id stayed counts.
            before = cache["last_update_id"]
            bids, asks = manager.get_bids(symbol), manager.get_asks(symbol)
            time.sleep(0.02)
            if cache["last_update_id"] == before:
                report.book(symbol, before, bids, asks)
        time.sleep(0.005)
    manager.stop_manager()


main(Report("unicorn-binance-local-depth-cache"))
os._exit(0)  # its threads end late
