"""Shared by all simulated exchanges: markets, feeds, faults and servers."""
