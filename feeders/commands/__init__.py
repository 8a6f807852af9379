"""The command line of the feeders: one module a command, read here and nowhere deeper."""
