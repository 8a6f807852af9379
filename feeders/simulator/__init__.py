"""A local exchange: real sockets, a made-up market whose true book is known at every id, faults on request."""
