"""Passes: from graph to graph, none of which knows hardware or cost."""
