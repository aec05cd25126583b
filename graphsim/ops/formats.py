"""How numbers are stored and multiplied: the one table of number formats.

A format states the bytes per number, scales included, the matrix rate at which it is multiplied, and its name in the
measured kernels of each cost family. Other conversions in a kernel (`cost/families/formats.py`) is described with the
formats of this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from graphsim.files.ggml import BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One storage format.

    bytes: per element, block scales and zero points included
    per_output, per_input: additional bytes for each output and each input of a weight: scales of whole rows, and the
        group of each input where groups are not in order
    compute: the format whose matrix rate applies ("" where values are widened to the activations' first)
    gemm, moe, attention: the `dtype` by which the kernels of that cost family know weights (in attention, keys and
        values) in this format, or in the nearest one that they run; "" where they run nothing like it
    block_n, block_k: outputs and inputs of a weight that share a scale and lie on one device; 0 where shards may end
        anywhere (engines pad mxfp4's)
    """

    name: str
    bytes: float
    per_output: float = 0.0
    per_input: float = 0.0
    compute: str = ""
    gemm: str = ""
    moe: str = ""
    attention: str = ""
    block_n: int = 0
    block_k: int = 0


@lru_cache(maxsize=256)
def weight_only(
    bits: int, group: int, *, zeros: bool = True, wide_zeros: bool = False, ordered: bool = False
) -> Format:
    """Integers of `bits` bits with an fp16 scale per group, and a zero point where `zeros`; widened before use.

    group: weights that share a scale; 0 or less for one per output channel
    wide_zeros: zero points in 16 bits too, as HQQ, Quanto and torchao keep them, not in `bits`
    ordered: groups are of inputs in the order of their activations' size (GPTQ's `desc_act`): 4 bytes for each input
    GPTQ: arXiv 2210.17323; AWQ: arXiv 2306.00978; HQQ: github.com/dropbox/hqq, `hqq/core/quantize.py`.
    """
    packed = 3.2 if bits == 3 and wide_zeros else bits  # HQQ: ten values of 3 bits in 32
    scale = 2.0 + ((2.0 if wide_zeros else bits / 8) if zeros else 0.0)
    name = f"int{bits}" + ("" if (bits, group) == (4, 128) else f"_g{group}" if group > 0 else "_channel")
    name += ("_z16" if wide_zeros else "") if zeros else "_sym"
    return Format(
        name=name + ("_act" if ordered else ""), bytes=packed / 8 + (scale / group if group > 0 else 0.0),
        per_output=0.0 if group > 0 else scale, per_input=4.0 if ordered else 0.0,
        gemm="int4_wo" if bits <= 4 else "int8_wo", moe="int4_wo", attention="fp8", block_k=max(group, 0),
    )  # fmt: skip


@lru_cache(maxsize=64)
def fp8_blocks(n: int, k: int) -> Format:
    """e4m3 with one fp32 scale for n x k weights (DeepSeek-V3 report, arXiv 2412.19437, section 3.3.2)."""
    name = "fp8_block" if (n, k) == (128, 128) else f"fp8_block_{n}x{k}"
    return Format(
        name=name, bytes=1.0 + 4.0 / (n * k), compute="fp8", gemm="fp8_block", moe="fp8_block", attention="fp8",
        block_n=n, block_k=k,
    )  # fmt: skip


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(name="fp32", bytes=4.0, compute="tf32", gemm="float32", moe="float32", attention="float32"),
        Format(name="bf16", bytes=2.0, compute="bf16", gemm="bfloat16", moe="bfloat16", attention="bfloat16"),
        Format(name="fp16", bytes=2.0, compute="fp16", gemm="bfloat16", moe="bfloat16", attention="bfloat16"),
        # one scale per tensor
        Format(name="fp8", bytes=1.0, compute="fp8", gemm="fp8", moe="fp8", attention="fp8"),
        # one 16-bit scale per output channel (compressed-tensors' FP8_DYNAMIC, whose checkpoints hold it in bf16)
        Format(name="fp8_channel", bytes=1.0, per_output=2.0, compute="fp8", gemm="fp8", moe="fp8", attention="fp8"),
        # one fp32 scale per output channel (FBGEMM, ModelOpt)
        Format(name="fp8_row", bytes=1.0, per_output=4.0, compute="fp8", gemm="fp8", moe="fp8", attention="fp8"),
        # the same weights, widened to the activations before the GEMM
        Format(name="fp8_wo", bytes=1.0, per_output=2.0, gemm="int8_wo", moe="fp8_wo", attention="fp8"),
        fp8_blocks(128, 128),
        # 32 e4m3 values share an e8m0 scale (OCP Microscaling Formats specification 1.0, section 5)
        Format(
            name="mxfp8", bytes=1.0 + 1.0 / 32, compute="fp8", gemm="fp8_block", moe="fp8_block", attention="fp8",
            block_k=32,
        ),
        # one 16-bit scale per output channel
        Format(name="int8", bytes=1.0, per_output=2.0, compute="int8", gemm="int8", moe="int8", attention="fp8"),
        # bitsandbytes: rows and columns have an fp32 scale each, those of weights are kept; outliers multiply in 16
        # bits (arXiv 2208.07339)
        Format(name="llm_int8", bytes=1.0, per_output=4.0, compute="int8", gemm="int8", moe="int8", attention="fp8"),
        # 16 e2m1 values share an e4m3 scale (NVIDIA, "Introducing NVFP4", 2025)
        Format(
            name="nvfp4", bytes=0.5 + 1.0 / 16, compute="fp4", gemm="nvfp4", moe="nvfp4", attention="fp8", block_k=16
        ),
        # the same weights, widened to the activations before the GEMM
        Format(name="nvfp4_wo", bytes=0.5 + 1.0 / 16, gemm="nf4", moe="int4_wo", attention="fp8", block_k=16),
        # 32 values share an e8m0 scale: e2m1 or e3m2 (OCP Microscaling Formats specification 1.0, section 5)
        Format(name="mxfp4", bytes=0.5 + 1.0 / 32, gemm="w4a16_mxfp4", moe="w4a16_mxfp4", attention="fp8"),
        Format(name="mxfp6", bytes=0.75 + 1.0 / 32, gemm="int8_wo", moe="fp8_wo", attention="fp8", block_k=32),
        # multiplied in FP4, activations quantised alike
        Format(name="mxfp4_w4a4", bytes=0.5 + 1.0 / 32, compute="fp4", gemm="mxfp4", moe="w4a8_mxfp4_mxfp8",
               attention="fp8", block_k=32),
        weight_only(4, 128),
        # bitsandbytes: fp32 absmax per 64 values; double quantisation stores it in 8 bits (arXiv 2305.14314, section 3)
        Format(name="nf4", bytes=0.5 + 4.0 / 64, gemm="nf4", moe="int4_wo", attention="fp8"),
        Format(name="nf4_dq", bytes=0.5 + 1.0 / 64 + 4.0 / (64 * 256), gemm="nf4", moe="int4_wo", attention="fp8"),
        # four ternary values in a byte (BitNet b1.58, arXiv 2402.17764; transformers, `integrations/bitnet.py`)
        Format(name="ternary", bytes=0.25, gemm="int4_wo", moe="int4_wo", attention="fp8"),
    )
}  # fmt: skip
"""All storage formats that have a name of their own."""

_IN_TABLE = ("MXFP4", "NVFP4")
"""llama.cpp's types that the table already has under the same names, except for case."""

GGML = {
    name.lower(): Format(
        name=name.lower(), bytes=kind.bytes / kind.weights, moe="int4_wo", attention="fp8", block_k=kind.weights,
        gemm="int4_wo" if 8 * kind.bytes < 6 * kind.weights else "int8_wo",
    )
    for name, kind in BLOCKS.items()
    if name not in _IN_TABLE
}  # fmt: skip
"""llama.cpp's types, `q4_k`, `iq2_xs` and others, whose blocks run along the inputs. Its kernels dequantise them, or
multiply 8-bit integers in blocks; the nearest measured kernels are those of weight-only integers.
"""

SPELLINGS = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float8": "fp8", "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8", "int8_sq": "int8", "sq": "int8", "llm.int8": "llm_int8", "bnb_int8": "llm_int8",
    "bnb_nf4": "nf4", "fp4": "nvfp4", "w4a16": "int4", "w4a16_awq": "int4",
}  # fmt: skip
"""Other names of formats, as PyTorch, engines and files of measurements write them."""

SAME_WIDTH: dict[str, tuple[str, ...]] = {"tf32": ("fp32",), "fp16": ("bf16",), "bf16": ("fp16",)}
"""Matrix formats whose rate is used if a device states none for the first, since the operation still runs."""

_WIDE = ("bf16", "fp16", "tf32", "fp32")
RATES: dict[str, tuple[str, ...]] = {
    "fp4": ("fp4", "fp8", *_WIDE), "int8": ("int8", "fp8", *_WIDE), "fp8": ("fp8", *_WIDE), "bf16": _WIDE,
    "fp16": ("fp16", "bf16", "tf32", "fp32"), "tf32": ("tf32", "fp32", "bf16"),
}  # fmt: skip
"""For each matrix format, in which formats its kernels multiply: the first one whose rate a device states."""

_INTEGERS = re.compile(r"int([1-8])(?:_g([1-9]\d{0,5})|(_channel))?(_sym|_z16)?(_act)?")
_BLOCKS = re.compile(r"fp8_block_([1-9]\d{0,4})x([1-9]\d{0,4})")


@lru_cache(maxsize=256)
def _mixed(name: str) -> Format | None:
    """Equal slices in several formats, as one."""
    slices = [format_of(part) for part in name.split("+", 8)]
    known = [form for form in slices if form is not None]
    if len(known) < len(slices):
        return None
    widest = max(known, key=lambda form: form.bytes)
    each = sum(form.bytes for form in known) / len(known)
    return replace(widest, name=name, bytes=each, compute="", block_k=max(form.block_k for form in known))


def format_of(name: str) -> Format | None:
    """The format that a name or another spelling of it stands for; None where there is none.

    In addition to the table's: `int4_g64` for integers with a scale and a zero point for each 64, `int8_channel` for
    each output; `_sym` without zero points, `_z16` with wide ones, `_act` for groups in the order of activations;
    `fp8_block_64x128`; and `q4_k+q6_k` for a weight whose slices, of one size, are in several formats. Case does not
    matter.
    """
    name = name.lower()
    known = FORMATS.get(SPELLINGS.get(name, name)) or GGML.get(name)
    if known is not None:
        return known
    if "+" in name:
        return _mixed(name)
    if blocks := _BLOCKS.fullmatch(name):
        return fp8_blocks(int(blocks[1]), int(blocks[2]))
    found = _INTEGERS.fullmatch(name)
    if found is None:
        return None
    bits, group, channel, zeros, ordered = found.groups()
    size = int(group) if group else 0 if channel else 128 if bits == "4" else None
    if size is None:
        return None
    return weight_only(int(bits), size, zeros=zeros != "_sym", wide_zeros=zeros == "_z16", ordered=bool(ordered))
