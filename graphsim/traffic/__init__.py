"""What servers are asked: arrivals, lengths, shared prefixes and adapters of many requests."""
