"""Hostile bytes for everything that reads bytes from outside: `python -m tests.fuzz`.

atheris could do the long runs, but has packages for Linux on x86-64 alone, ends at the first failure, and steers by
the coverage of Python code, while most of what parses here is C (msgspec, hiredis). The short run in every test run
would still need the mutations that are here.
"""
