"""Strategies to begin with."""
