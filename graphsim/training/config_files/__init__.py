"""Readers of the trainers' own files: what a user has at hand becomes arguments of `train` and `fine_tune_plan`."""
