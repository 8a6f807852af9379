"""Redis and Valkey servers: which one, how to reach it, how to start it, who may do what there."""
