"""From order books to Redis: outbox, publish script, connections."""
