"""Models: their descriptions, layers, and readers."""
