"""What a person looks at: one module a command of `python -m consumers`."""
