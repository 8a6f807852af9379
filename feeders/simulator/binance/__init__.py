"""A simulated Binance."""
