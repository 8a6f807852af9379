"""All targets by name."""

from tests.fuzz import bus, exchanges, files

TARGETS = {target.name: target for target in (*exchanges.TARGETS, *bus.TARGETS, *files.TARGETS)}
