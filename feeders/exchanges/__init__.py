"""One venue = one protocol (pure) and one adapter (sockets, requests)."""
