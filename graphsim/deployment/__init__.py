"""Deployments and their results: graphs, latencies, memory."""
