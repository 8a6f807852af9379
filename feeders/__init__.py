"""From the exchange to Redis: connections, order books, publisher."""

if __name__ == "feeders":  # imported as a top-level folder of a checkout
    from bookbus._checkout import alias

    alias(__name__)
