"""Order books and their synchronisation with an exchange; no I/O, no clock."""
