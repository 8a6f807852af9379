"""The live page and the interface behind it: books, feeders and readers of the bus as JSON, over HTTP and WebSocket."""
