"""The contract between bookbus processes: values, names and bytes; no I/O, no clock."""

BOOKBUS_CONTRACT = 1
"""Proves to `feeders` and `consumers` that the package called `schemas` is this one."""
