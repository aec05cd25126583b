"""Analyses of one deployment: comparison of strategies, advice, explanations, break-even points, adapter slots."""
