"""What is run where, and what follows from it: graphs, latencies, memory."""
