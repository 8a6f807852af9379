"""Simulated exchanges: real protocols, synthetic markets whose true book is known at every id, faults on request."""
