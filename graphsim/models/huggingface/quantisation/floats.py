"""Methods that store e4m3 or e2m1 by module class: FP8 with scales per block or tensor, MXFP4, MXFP8, NVFP4."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import any_name
from graphsim.models.huggingface.quantisation.stored import Stored, kept_out, linears, refused, strings
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, fp8_blocks, weight_only
from graphsim.units import bounds_text

_LISTS = ("modules_to_not_convert", "ignored_layers")


def fp8(quant: Fields) -> Stored:
    """DeepSeek-V3's FP8: every nn.Linear and expert except those listed, with one scale per block if blocks are given.

    transformers 5.24, `FineGrainedFP8Config` and `integrations/finegrained_fp8.py` (`replace_with_fp8_linear`).
    """
    own = _blocks(quant) or FORMATS["fp8"]
    experts = FORMATS["mxfp4"] if quant.text("expert_dtype", "fp8") == "fp4" else None
    if strings(quant, "modules_to_convert"):
        refused(quant, "modules_to_convert")
    return Stored(choose=linears(own, kept_out(quant, *_LISTS), experts))


def _blocks(quant: Fields) -> Format | None:
    """The format for a `weight_block_size`; None if there is none."""
    sizes = quant.sequence("weight_block_size", most=2)
    if not sizes:
        return None
    if len(sizes) != 2 or not all(isinstance(size, int) and 0 < size <= 10_000 for size in sizes):
        quant.problem("weight_block_size", f"is not allowed; expected two whole numbers {bounds_text(1, 10_000)}")
        return None
    return fp8_blocks(*sizes)


def rowwise(quant: Fields) -> Stored:
    """FBGEMM's FP8: one fp32 scale per output (transformers 5.24, `integrations/fbgemm_fp8.py`)."""
    return Stored(choose=linears(FORMATS["fp8_row"], kept_out(quant, *_LISTS)))


def mxfp4(quant: Fields) -> Stored:
    """gpt-oss: only the experts, except those listed (transformers 5.24, `replace_with_mxfp4_linear`)."""
    skipped = kept_out(quant, *_LISTS)

    def choose(module: Module) -> Format | None:
        return FORMATS["mxfp4"] if module.kind is Kind.EXPERTS and not (skipped and any_name(module, skipped)) else None

    return Stored(choose=choose)


def mxfp8(quant: Fields) -> Stored:
    """e4m3 with one e8m0 scale per 32 inputs (transformers 5.24, `quantizers/auto.py`)."""
    return Stored(choose=linears(FORMATS["mxfp8"], kept_out(quant, *_LISTS)))


def nvfp4(quant: Fields) -> Stored:
    """NVFP4 of transformers' own quantiser (5.24, `quantizers/quantizer_nvfp4.py`)."""
    return Stored(choose=linears(FORMATS["nvfp4"], kept_out(quant, *_LISTS)))


def w4afp8(quant: Fields) -> Stored:
    """SGLang's `quantization/w4afp8.py`: FP8 in blocks, experts in 4-bit integers with one scale per 128."""
    own = _blocks(quant) or FORMATS["fp8_block"]
    return Stored(choose=linears(own, None, weight_only(4, 128, zeros=False)))


METHODS = {
    "fp8": fp8, "fbgemm_fp8": rowwise, "mxfp4": mxfp4, "mxfp8": mxfp8, "nvfp4": nvfp4, "w4afp8": w4afp8,
}  # fmt: skip
