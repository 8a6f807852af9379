"""From exchange to bus: sockets, order books, publisher."""

if __name__ == "feeders":  # imported by its place in a checkout
    from bookbus._checkout import alias

    alias(__name__)
