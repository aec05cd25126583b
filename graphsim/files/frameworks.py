"""Names of frameworks whose kernels are measured, as used in tables of measurements and engine profiles."""

from __future__ import annotations

ENGINES = ("sglang", "trtllm")
"""Frameworks with separate calibrations; the base calibration is fitted to vLLM, NCCL, oneCCL and unnamed kernels."""

ANY = "any"
"""Key of a kernel ranking for every number format or architecture without an entry."""
