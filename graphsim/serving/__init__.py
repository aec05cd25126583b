"""Servers under load: what requests wait for beside the kernels."""
