"""Prefill on some workers, decode on others: the hand-off of keys and values, and both pools on one clock."""
