"""Exporters of graphs and estimates to pictures, tables and files; none changes a graph or computes a time."""
