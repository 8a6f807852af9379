"""Books kept in this process: a feed in a thread of its own, or a made-up market."""
