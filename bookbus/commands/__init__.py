"""The commands of `bookbus` that belong to no package: they start the others as processes."""
