"""Formulas recorded once and evaluated many times: the graph's numbers without the graph."""
