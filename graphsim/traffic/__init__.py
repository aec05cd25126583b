"""Workloads of servers: arrivals, lengths, shared prefixes and adapters of many requests."""
