"""Judging estimates against measurements and exact counts."""
