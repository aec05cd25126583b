"""Readers of the trainers' own configuration files, which become arguments of `train` and `fine_tune_plan`."""
