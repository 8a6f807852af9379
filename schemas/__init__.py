"""The contract between bookbus processes: values, Redis names and byte formats. No I/O, no clock."""

if __name__ == "schemas":  # imported as a top-level folder of a checkout
    from bookbus._checkout import alias

    alias(__name__)
