"""What paper runs left behind, judged and shown."""
