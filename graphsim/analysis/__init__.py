"""Questions about one deployment: compare strategies, advise, explain, break even, count adapter slots."""
