"""The contract between bookbus processes: values, names and bytes; no I/O, no clock."""

if __name__ == "schemas":  # imported by its place in a checkout
    from bookbus._checkout import alias

    alias(__name__)
