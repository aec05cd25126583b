"""A page that explores a deployment: its formulas as JavaScript, and controls of their inputs."""
