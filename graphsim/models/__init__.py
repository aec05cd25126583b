"""What a model is: its description, its layers, and where descriptions come from."""
