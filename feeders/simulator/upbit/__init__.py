"""A simulated Upbit."""
