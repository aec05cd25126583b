"""Presentation of numbers and operations: tables, notebooks, plots, colours."""
