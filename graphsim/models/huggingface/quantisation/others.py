"""HQQ, Quanto, EETQ, BitNet, HIGGS and engines' own 8-bit methods: one scheme, and a list of excluded modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import is_linear
from graphsim.models.huggingface.quantisation.stored import Stored, kept_out, linears, refused, strings
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, weight_only


def hqq(quant: Fields) -> Stored | None:
    """HQQ: one scheme for all modules, or one per module name without indices.

    transformers 5.24, `integrations/hqq.py` (`name_to_linear_tag`, `prepare_for_hqq_linear`) and
    `quantization_config.py` (`HqqConfig`); scales and zero points in 16 bits.
    """
    said = quant.raw("quant_config")
    schemes = said if isinstance(said, Mapping) else {"weight_quant_params": dict(quant.data)}
    listed = strings(quant, "skip_modules")
    skipped = {"lm_head"} if listed is None else set(listed)
    if "weight_quant_params" in schemes:
        usual, by_tag = _hqq(quant, schemes), None
    else:
        usual, by_tag = None, {str(tag): _hqq(quant, scheme) for tag, scheme in schemes.items() if scheme}

    def choose(module: Module) -> Format | None:
        tags = {_tag(name) for part in module.names for name in part}
        if not (is_linear(module) or module.kind is Kind.HEAD and not module.tied) or tags & skipped:
            return None
        return usual if by_tag is None else next((by_tag[tag] for tag in tags if tag in by_tag), None)

    return Stored(choose=choose)


def _tag(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in ("model", "layers") and not word.isnumeric())


def _hqq(quant: Fields, scheme: Any) -> Format | None:
    inner = scheme.get("weight_quant_params", scheme) if isinstance(scheme, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("nbits", 4), int):
        quant.problem("quant_config", "is not allowed; expected weight_quant_params with nbits and group_size")
        return None
    if any(scheme.get(key) for key in ("scale_quant_params", "zero_quant_params")):
        refused(quant, "HQQ with quantised scales or zero points")
        return None
    bits, group = inner.get("nbits", 4), inner.get("group_size", 64)
    if bits not in (1, 2, 3, 4, 8):
        quant.problem("quant_config", "is not allowed; expected nbits of 1, 2, 3, 4 or 8")
        return None
    return weight_only(bits, group if isinstance(group, int) else 0, wide_zeros=True)


def quanto(quant: Fields) -> Stored:
    """Quanto: 8 bits with one scale per output, fewer bits with scale and shift per 128 (optimum-quanto 0.2)."""
    weights = quant.text("weights", "int8", ("int8", "int4", "int2", "float8"))
    own = {
        "int8": weight_only(8, 0, zeros=False), "int4": weight_only(4, 128, wide_zeros=True),
        "int2": weight_only(2, 128, wide_zeros=True), "float8": FORMATS["fp8_wo"],
    }[weights]  # fmt: skip
    return _listed(quant, own)


def _listed(quant: Fields, own: Format) -> Stored:
    return Stored(choose=linears(own, kept_out(quant, "modules_to_not_convert")))


def higgs(quant: Fields) -> Stored:
    """HIGGS: one index per `p` weights, one scale per group (arXiv 2411.17525)."""
    bits, group = quant.integer("bits", 4, least=2, most=4), quant.integer("group_size", 256)
    return _listed(quant, weight_only(bits, group, zeros=False))


def experts_only(quant: Fields) -> Stored:
    """vLLM's `experts_int8`: the experts in 8 bits, the rest not quantised (`quantization/experts_int8.py`)."""
    return Stored(choose=lambda module: FORMATS["int8"] if module.kind is Kind.EXPERTS else None)


def _one(own: Format) -> Callable[[Fields], Stored]:
    return lambda quant: _listed(quant, own)


METHODS: dict[str, Callable[[Fields], Stored | None]] = {
    "hqq": hqq,
    "quanto": quanto,
    "higgs": higgs,
    "eetq": _one(weight_only(8, 0, zeros=False)),
    "bitnet": _one(FORMATS["ternary"]),
    "experts_int8": experts_only,
    "w8a8_int8": _one(FORMATS["int8"]),
    "w8a8_fp8": _one(FORMATS["fp8_channel"]),
}
NOT_SIMULATED = ("aqlm", "vptq", "spqr", "fp_quant", "sinq", "metal", "fouroversix", "gemma", "gguf", "bitblas", "qqq")
"""Methods whose checkpoints have codebooks, outliers or special layouts."""
