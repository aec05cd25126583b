"""Names of frameworks whose kernels are measured, as tables of measurements and profiles of engines write them."""

from __future__ import annotations

ENGINES = ("sglang", "trtllm")
"""Frameworks with calibrations of their own; kernels of vLLM, NCCL and oneCCL, or of none named, make the base."""

ANY = "any"
"""In an order of kernels: every number format, or architecture, that has none of its own."""
