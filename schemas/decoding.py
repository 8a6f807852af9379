"""Errors of decoding untrusted bytes."""

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Malformed or unexpected data, invalid UTF-8 (msgspec raises the built-in error), and data nested too deeply."""
