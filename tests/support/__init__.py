"""What tests share: builders, waiting, private servers."""
