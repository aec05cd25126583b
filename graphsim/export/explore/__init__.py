"""A page in which a deployment can be explored: its formulas, written out as JavaScript, and what moves them."""
