"""Passes: from graph to graph, without any knowledge of hardware or cost."""
