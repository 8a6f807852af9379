"""What every simulated exchange shares: markets, feeds, faults and servers."""
