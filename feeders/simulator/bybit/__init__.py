"""A simulated Bybit."""
