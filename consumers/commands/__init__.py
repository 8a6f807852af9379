"""The command line of `python -m consumers`, one module a command."""
