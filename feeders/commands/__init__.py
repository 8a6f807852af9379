"""The command line of `python -m feeders`, one module per command."""
