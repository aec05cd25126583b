"""Quantised checkpoints: which formats weights, activations and cache are in, with their true bytes per weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.ops.formats import FORMATS, Format, weight_only
from graphsim.ops.precision import Precision, load_precision

_METHODS = ("fp8", "fbgemm_fp8", "mxfp4", "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt")
_ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PB_WO": "fp8_block",
    "NVFP4": "nvfp4",
    "W4A16_AWQ": "int4",
    "INT4_AWQ": "int4",
    "W4A8_AWQ": "int4",
    "INT8": "int8",
}
"""ModelOpt's names; NVFP4 multiplies in FP4, the W4 algorithms widen weights first."""


def read_precision(fields: Fields, quantised: Any) -> Precision | None:
    """The precision that a `quantization_config` describes, None where there is none.

    Problems with its values are noted in `fields`.
    """
    if quantised is None:
        return None
    quant = fields.child(quantised, "quantization_config", lenient=True)
    method = quant.text("quant_method", "modelopt" if _algorithm(quant) else "")
    reader = _READERS.get(method)
    if reader is None:
        quant.problems.append(
            f"quantization_config.quant_method = '{method}' is not known; {choices_text(method, _METHODS)}"
        )
        return None
    precision: Precision | None = reader(quant)
    return None if precision is None else _with_exclusions(quant, precision)


def _with(name_or_format: str | Format, kv: str | None = None) -> Precision:
    base = load_precision("bf16", kv)
    return replace(base, weights=FORMATS[name_or_format] if isinstance(name_or_format, str) else name_or_format)


def _fp8(quant: Fields) -> Precision:
    return _with("fp8_block" if quant.sequence("weight_block_size") else "fp8")


def _mxfp4(quant: Fields) -> Precision:
    return replace(load_precision("bf16"), experts=FORMATS["mxfp4"])


def _grouped(quant: Fields) -> Precision:
    bits = quant.integer("bits", quant.integer("w_bit", 4, most=16), most=16)
    group = quant.integer("group_size", quant.integer("q_group_size", 128, least=-1), least=-1)
    zeros = quant.flag("zero_point", not quant.flag("sym", False))
    return _with(weight_only(bits, group, zeros=zeros))


def _bitsandbytes(quant: Fields) -> Precision | None:
    if quant.flag("load_in_8bit", False):
        return _with("llm_int8")
    if not quant.flag("load_in_4bit", quant.flag("_load_in_4bit", False)):
        quant.problems.append(
            "quantization_config names bitsandbytes, expected load_in_4bit or load_in_8bit to be true"
        )
        return None
    return _with("nf4_dq" if quant.flag("bnb_4bit_use_double_quant", False) else "nf4")


def _compressed_tensors(quant: Fields) -> Precision | None:
    groups = quant.mapping("config_groups", lenient=True)
    names = list(groups.keys())
    if not names:
        return load_precision("bf16")
    first = groups.mapping(names[0], lenient=True)
    weights = first.mapping("weights", lenient=True)
    bits = weights.integer("num_bits", 8, most=16)
    floating = weights.text("type", "int") == "float"
    cache = quant.mapping("kv_cache_scheme", lenient=True) if "kv_cache_scheme" in quant else None
    kv = "fp8" if cache is not None and cache.integer("num_bits", 8) == 8 else None
    if first.raw("input_activations") is None:
        group = weights.integer("group_size", -1, least=-1)
        return _with(weight_only(bits, group, zeros=not weights.flag("symmetric", True)), kv)
    if floating:
        block = weights.text("strategy", "tensor") == "block"
        return _with("nvfp4" if bits == 4 else "fp8_block" if block else "fp8", kv)
    return _with("int8" if bits == 8 else "int4", kv)


def _algorithm(quant: Fields) -> str:
    nested = quant.data.get("quantization")
    source = nested if isinstance(nested, Mapping) else quant.data
    found = source.get("quant_algo")
    return found if isinstance(found, str) else ""


def _modelopt(quant: Fields) -> Precision | None:
    algorithm = _algorithm(quant)
    name = _ALGORITHMS.get(algorithm.upper())
    if name is None:
        allowed = choices_text(algorithm, _ALGORITHMS)
        quant.problems.append(f"quantization_config.quant_algo = '{algorithm}' is not known; {allowed}")
        return None
    nested = quant.data.get("quantization")
    source = nested if isinstance(nested, Mapping) else quant.data
    cache = source.get("kv_cache_quant_algo") or (source.get("kv_cache_scheme") and "FP8")
    return _with(name, "fp8" if isinstance(cache, str) and cache.upper() == "FP8" else None)


def _with_exclusions(quant: Fields, precision: Precision) -> Precision:
    """Attention stays in the activations' format where the config keeps its projections out."""
    nested = quant.data.get("quantization")
    listed: list[Any] = []
    for source in (quant.data, nested if isinstance(nested, Mapping) else {}):
        for key in ("modules_to_not_convert", "ignore", "exclude_modules"):
            entries = source.get(key)
            listed += entries if isinstance(entries, list) else []
    if precision.experts is None and _names_attention(listed):
        return replace(precision, attention=precision.activations)
    return precision


def _names_attention(entries: Iterable[Any]) -> bool:
    """Whether most of the entries, or a pattern for every layer, name attention as a whole."""
    texts = [entry for entry in entries if isinstance(entry, str)]
    return any("self_attn" in text and not any(part in text for part in ("indexer", "kv_b")) for text in texts)


_READERS = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "mxfp4": _mxfp4,
    "gptq": _grouped,
    "awq": _grouped,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
}
