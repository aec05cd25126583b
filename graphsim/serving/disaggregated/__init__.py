"""Prefill on some workers, decode on others: the transfer of keys and values, and both pools on one clock."""
