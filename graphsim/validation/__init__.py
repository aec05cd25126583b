"""Validation of estimates against measurements and exact counts."""
