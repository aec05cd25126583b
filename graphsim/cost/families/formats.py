"""The number formats of measured kernels: the operands and matrix rate of a `dtype` of the reference schema.

Bytes and rates are those of the table of formats (`ops/formats.py`); this module defines which of them a kernel
combines, and whose fit is used if it was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops.formats import FORMATS, RATES, SPELLINGS, Format, format_of, weight_only
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtype:
    """The formats that a kernel combines.

    weights: of the stored operand: weights, or keys and values
    inputs: of the other operand, as it enters the matrix units
    compute: the matrix format, if it is not that of the inputs
    quantised: inputs arrive in 16 bits and are quantised by a preceding kernel; results have 16 bits
    measured: the layout of the weights in the fits, if it differs from that of the dtype
    like: the dtype whose constants are used if this one was not measured
    weight_only: the fallback on a device without such a matrix unit: 16-bit inputs, same weights
    """

    weights: Format
    inputs: Format
    compute: str = ""
    quantised: bool = False
    measured: Format | None = None
    like: str = ""
    weight_only: str = ""

    @property
    def rates(self) -> tuple[str, ...]:
        """Matrix formats whose rate applies, the first one that a device states."""
        return RATES[self.compute or self.inputs.compute]

    def lacking(self, hardware: Hardware) -> bool:
        """Whether the device has no matrix unit for it."""
        return self.rates[0] not in hardware.flops_per_s

    @property
    def activation_bytes(self) -> float:
        """Bytes per number of inputs before any quantisation, and of results."""
        return FORMATS["bf16"].bytes if self.quantised else self.inputs.bytes


def _dtype(weights: str, inputs: str, **further: str | bool | Format) -> Dtype:
    return Dtype(weights=FORMATS[weights], inputs=FORMATS[inputs], **further)  # type: ignore[arg-type]


GEMM: dict[str, Dtype] = {
    "bfloat16": _dtype("bf16", "bf16"),
    "float32": _dtype("fp32", "fp32", like="bfloat16"),
    "fp8": _dtype("fp8", "fp8", quantised=True, like="bfloat16", weight_only="int8_wo"),
    "fp8_block": _dtype("fp8_block", "fp8", quantised=True, like="fp8", weight_only="int8_wo"),
    "int8": _dtype("int8", "int8", quantised=True, like="fp8", weight_only="int8_wo"),
    "nvfp4": _dtype("nvfp4", "nvfp4", quantised=True, like="fp8", weight_only="nf4"),
    "mxfp4": _dtype("mxfp4", "mxfp4", compute="fp4", quantised=True, like="nvfp4", weight_only="w4a16_mxfp4"),
    "int8_wo": _dtype("int8", "bf16", like="bfloat16"),
    "int4_wo": _dtype("int4", "bf16", like="bfloat16"),
    "nf4": _dtype("nf4", "bf16", like="bfloat16"),
    "w4a16_mxfp4": _dtype("mxfp4", "bf16", like="bfloat16"),
}
"""Of GEMMs."""

MOE: dict[str, Dtype] = {
    "bfloat16": _dtype("bf16", "bf16"),
    "float32": _dtype("fp32", "fp32", like="bfloat16"),
    "fp8": _dtype("fp8", "fp8", quantised=True, like="bfloat16", weight_only="fp8_wo"),
    "fp8_block": _dtype("fp8_block", "fp8", quantised=True, like="fp8", weight_only="fp8_wo"),
    "int8": _dtype("int8", "int8", quantised=True, like="fp8"),
    "nvfp4": _dtype("nvfp4", "nvfp4", quantised=True, like="fp8", weight_only="int4_wo"),
    "fp8_wo": _dtype("fp8", "bf16", like="int4_wo"),
    "w4a8_mxfp4_mxfp8": _dtype("mxfp4", "fp8", quantised=True, like="fp8"),
    "w4a16_mxfp4": _dtype("mxfp4", "bf16", like="bfloat16"),
    "int4_wo": _dtype("int4", "bf16", measured=weight_only(4, 64, zeros=False), like="w4a16_mxfp4"),
}
"""Of blocks of experts; activations enter and leave them in 16 bits or more."""

ATTENTION: dict[str, Dtype] = {
    "bfloat16": _dtype("bf16", "bf16"),
    "fp8": _dtype("fp8", "bf16", compute="fp8", like="bfloat16"),
    "fp8_queries": _dtype("fp8", "fp8", like="fp8"),
    "float32": _dtype("fp32", "fp32", like="bfloat16"),
}
"""Of attention: weights are the cached keys and values, inputs the queries; `fp8` quantises these within the kernel."""


def alike(dtypes: Mapping[str, Dtype], name: str) -> Iterator[str]:
    """The dtypes whose constants stand in for those of one that was not measured, the most similar first.

    Those that would take its own come before the one whose constants it takes.
    """
    while name:
        yield from (other for other, it in dtypes.items() if it.like == name)
        name = dtypes[name].like
        if name:
            yield name


DTYPES: dict[str, dict[str, Dtype]] = {"gemm": GEMM, "moe": MOE, "attention": ATTENTION}
"""The kernels of each family whose operands have formats of their own, in the order in which they are fitted."""

MOVED = ("bfloat16", "float16", "half", "float32", "fp8", "int8")
"""Dtypes of measured memory-bound kernels, on a device or between devices."""


def dtype_of(family: str, name: str) -> str:
    """The canonical dtype of a family's kernels for a dtype, a format or another spelling of one.

    Raises ConfigError with the nearest valid one.
    """
    if name in DTYPES[family]:
        return name
    if family == "attention" and name == "auto":  # vLLM's word for a cache as wide as its 16-bit activations
        return "bfloat16"
    stored = format_of(name)
    found: str = getattr(stored, family) if stored else ""
    if not found:
        what = "kv_dtype" if family == "attention" else f"{family} dtype"
        allowed = dict.fromkeys([*DTYPES[family], *FORMATS, *SPELLINGS])
        raise ConfigError(f"{what} '{name}' is not known; {choices_text(name, allowed)}")
    return found


def stored_bytes(family: str, name: str) -> float:
    """Bytes per weight, or per cached number, of what `dtype_of` takes: of a format its own, else the kernel's."""
    stored = None if name in DTYPES[family] else format_of(name)
    return stored.bytes if stored else DTYPES[family][dtype_of(family, name)].weights.bytes


def element_bytes(dtype: str, op: str) -> float:
    """Bytes of an element that a kernel moves. Raises ConfigError for an unmeasured dtype."""
    stored = format_of(dtype)
    if dtype not in MOVED or stored is None:
        raise ConfigError(f"dtype '{dtype}' of op '{op}' is not known; {choices_text(dtype, MOVED)}")
    return stored.bytes


WIDENED = ("fp8", "fp4")
"""Matrix formats whose weights weight-only kernels widen to 16 bits where a device lacks the matrix unit."""

WIDENING = ("turing", "ampere", "ada", "hopper", "blackwell", "blackwell-workstation")
"""Architectures that those kernels run on: Marlin, from compute capability 7.5 on.

vLLM, `quantization/utils/marlin_utils_fp8.py` and `marlin_utils_fp4.py` (pull request 5975 for FP8 on Ampere); SGLang
pull request 19652 for NVFP4.
"""


def runs_widened(hardware: Hardware, number_format: str) -> bool:
    """Whether GEMMs in a matrix format run with 16-bit activations, since the device has no unit for it."""
    missing = number_format in WIDENED and number_format not in hardware.flops_per_s
    return missing and hardware.architecture in WIDENING


def peak_of(hardware: Hardware, rates: tuple[str, ...]) -> Num:
    """Peak of the first of these matrix formats that the device states.

    Raises HardwareError where it states none of them.
    """
    for name in rates:
        if name in hardware.flops_per_s:
            return hardware.flops_per_s[name]
    return hardware.peak(rates[0])
