"""Fill models: when and at what price a paper order trades."""
