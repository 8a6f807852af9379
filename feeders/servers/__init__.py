"""Redis and Valkey servers: which one, how to find and reach it, who may do what there."""
