"""Low-rank adapters: their configuration, the modules that they target, and how they enter the graph."""
