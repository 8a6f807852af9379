"""How a reader follows the bus: connection, session, what is known of each book."""
