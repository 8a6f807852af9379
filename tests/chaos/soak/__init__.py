"""A soak run with faults: `python -m tests.chaos.soak`."""
