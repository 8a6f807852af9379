"""Shared by tests: builders, waiting, private servers."""
