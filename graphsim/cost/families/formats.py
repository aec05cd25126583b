"""Number formats of matrix products: bytes, peaks, and what stands in where a device lacks or nobody measured one."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a number format meets the device: whose peak, bytes per element, what else it costs.

    quantised: activations arrive in 16 bits and are quantised by a kernel in front
    like: the format whose constants stand in where this one was not measured
    weight_only: what runs instead on a device without such a matrix unit: 16-bit activations, same weights
    """

    peaks: tuple[str, ...]
    x_bytes: float
    w_bytes: float
    quantised: bool = False
    like: str = ""
    weight_only: str = ""


FORMATS: dict[str, Format] = {
    "bfloat16": Format(peaks=("bf16", "fp16", "tf32", "fp32"), x_bytes=2, w_bytes=2),
    "float32": Format(peaks=("tf32", "fp32", "bf16"), x_bytes=4, w_bytes=4, like="bfloat16"),
    "fp8": Format(
        peaks=("fp8", "bf16", "fp16"), x_bytes=1, w_bytes=1, quantised=True, like="bfloat16", weight_only="int8_wo"
    ),
    "fp8_block": Format(
        peaks=("fp8", "bf16", "fp16"), x_bytes=1, w_bytes=1, quantised=True, like="fp8", weight_only="int8_wo"
    ),
    "int8": Format(
        peaks=("int8", "fp8", "bf16"), x_bytes=1, w_bytes=1, quantised=True, like="fp8", weight_only="int8_wo"
    ),
    "nvfp4": Format(
        peaks=("fp4", "fp8", "bf16"), x_bytes=0.5625, w_bytes=0.5625, quantised=True, like="fp8", weight_only="nf4"
    ),
    "mxfp4": Format(
        peaks=("fp4", "fp8", "bf16"),
        x_bytes=0.53125,
        w_bytes=0.53125,
        quantised=True,
        like="nvfp4",
        weight_only="w4a16_mxfp4",
    ),
    "int8_wo": Format(peaks=("bf16", "fp16"), x_bytes=2, w_bytes=1, like="bfloat16"),
    "int4_wo": Format(peaks=("bf16", "fp16"), x_bytes=2, w_bytes=0.515625, like="bfloat16"),
    "nf4": Format(peaks=("bf16", "fp16"), x_bytes=2, w_bytes=0.5625, like="bfloat16"),
    "w4a16_mxfp4": Format(peaks=("bf16", "fp16"), x_bytes=2, w_bytes=0.53125, like="bfloat16"),
}
"""Formats by name. Block scales count into the bytes: nvfp4 one byte per 16, mxfp4 one per 32, int4 two per 128."""

ALIASES = {"bf16": "bfloat16", "fp16": "bfloat16", "float16": "bfloat16", "half": "bfloat16", "fp32": "float32",
           "int4": "int4_wo", "w4a16": "int4_wo", "w4a16_awq": "int4_wo", "int8_sq": "int8",
           "fp4": "nvfp4"}  # fmt: skip


def format_of(dtype: str) -> tuple[str, Format]:
    """Canonical name and description of a number format. Raises ConfigError with the nearest valid one."""
    name = ALIASES.get(dtype, dtype)
    if name not in FORMATS:
        raise ConfigError(f"gemm dtype '{dtype}' is not known; {choices_text(dtype, [*FORMATS, *ALIASES])}")
    return name, FORMATS[name]


def peak_of(hardware: Hardware, form: Format) -> Num:
    """Peak of the first of the format's compute formats that the device states."""
    for name in form.peaks:
        if name in hardware.flops_per_s:
            return hardware.flops_per_s[name]
    return hardware.peak(form.peaks[0])
