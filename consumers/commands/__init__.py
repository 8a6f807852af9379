"""The command line of `python -m consumers`, one module per command."""
