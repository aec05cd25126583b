"""Pictures, tables and files made from graphs and estimates. Nothing here changes a graph or computes a time."""
