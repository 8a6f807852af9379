"""A deterministic simulation of the whole system in virtual time.

`world` has the clocks, the network and the order of events; `server` a Redis server with the product's real scripts;
`exchange` a model of an exchange; `feeder` and `reader` run the product's own `Feeder`, `RedisMarketDataProvider` and
`BusTradeTail` on them; `faults` draws what goes wrong; `checks` judges what readers say with the true time;
`simulation` puts one run together.

`python -m tests.simulation --seeds 10000` runs seeds; `--seeds 1 --first N` prints the trace of one.
"""
