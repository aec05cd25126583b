"""Low-rank adapters: what a user asks for, which modules it reaches, how it enters the graph."""
