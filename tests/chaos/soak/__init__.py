"""A long run with faults: `python -m tests.chaos.soak`."""
