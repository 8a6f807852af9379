"""Books held against the exchange's own answers, in the background."""
