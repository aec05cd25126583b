"""From recorded rows to nodes of the block language that model files are written in."""
