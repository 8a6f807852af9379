"""The venues: for each a pure protocol and an adapter with its addresses, limits and requests."""
