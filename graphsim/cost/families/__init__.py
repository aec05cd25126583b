"""One module per operator family: its shape, its fit and its latency."""
