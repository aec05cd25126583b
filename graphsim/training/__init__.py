"""Training: forward, backward and optimizer of one step as one graph, its time and its memory."""
