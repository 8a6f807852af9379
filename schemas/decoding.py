"""What decoding bytes from outside can raise."""

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Malformed or unexpected data, invalid UTF-8 (msgspec raises the built-in error), and data nested too deeply."""
