"""NVIDIA ModelOpt: one algorithm for all modules except those matching wildcards, or one per layer (MIXED_PRECISION).

vLLM 0.15, `quantization/modelopt.py` (`is_layer_excluded`, `ModelOptMixedPrecisionConfig`); ModelOpt,
`modelopt/torch/export/quant_utils.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import any_name, is_output, wildcards
from graphsim.models.huggingface.quantisation.stored import Stored, cache_format, strings
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, weight_only

_NAMES = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8_row", "FP8_PB_WO": "fp8_block", "FP8_PB_REAL": "fp8_block",
    "NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4", "W4A16_NVFP4": "nvfp4_wo", "W4A8_NVFP4_FP8": "nvfp4_wo",
    "MXFP8": "mxfp8", "MXFP4": "mxfp4", "W4A8_MXFP4_FP8": "mxfp4",
    "INT8": "int8", "INT8_SQ": "int8", "W8A8_SQ_PER_CHANNEL": "int8",
    "W4A16_AWQ": "", "INT4_AWQ": "", "W4A8_AWQ": "", "W4A16": "", "W8A16": "",
}  # fmt: skip
"""ModelOpt's algorithms and the formats that they store; "" for integers with one scale per group, without zeros."""
MIXED = "MIXED_PRECISION"
_BY_DEFAULT = ("*lm_head*", "*router*", "*block_sparse_moe.gate*", "*mlp.gate.*", "*output_layer*")
"""ModelOpt's default exclusions (`modelopt/torch/quantization/config.py`)."""


def modelopt(quant: Fields) -> Stored | None:
    """The formats in `hf_quant_config.json` (all under `quantization`), or in its spelling in config.json."""
    source = quant.mapping("quantization", lenient=True) if "quantization" in quant else quant
    algorithm = source.text("quant_algo", "").upper()
    listed = strings(source, "exclude_modules", "ignore")
    if algorithm == MIXED:
        return _mixed(quant, source, wildcards(listed or ()))
    skipped = wildcards(_BY_DEFAULT if listed is None else listed)
    if not algorithm and source.raw("kv_cache_quant_algo") is not None:
        return Stored(choose=lambda module: None, cache=_cache(source))
    own = _format(quant, algorithm, source.raw("group_size"))
    if own is None:
        return None

    def choose(module: Module) -> Format | None:
        return own if (module.usual or is_output(module)) and not any_name(module, skipped) else None

    return Stored(choose=choose, cache=_cache(source))


def _mixed(quant: Fields, source: Fields, skipped: Any) -> Stored | None:
    listed = source.raw("quantized_layers")
    if not isinstance(listed, Mapping) or not listed:
        quant.problems.append(
            "quantization_config.quantized_layers is missing, expected a mapping of layers to algorithms"
        )
        return None
    formats: dict[str, Format | None] = {}
    for name, said in listed.items():
        algorithm = said.get("quant_algo") if isinstance(said, Mapping) else said
        size = said.get("group_size") if isinstance(said, Mapping) else None
        formats[str(name)] = _format(quant, str(algorithm).upper(), size)
    parents = {
        name.rpartition(".experts.")[0] + ".experts": own for name, own in formats.items() if ".experts." in name
    }

    def choose(module: Module) -> Format | None:
        if module.kind is Kind.TABLE or any_name(module, skipped):
            return None
        found = {formats[name] for part in module.names for name in part if name in formats}
        if not found and module.kind is Kind.EXPERTS:
            above = [name.rpartition(".")[0] for part in module.names for name in part]
            found = {table[name] for name in above for table in (formats, parents) if name in table}
        return next(iter(found), None)

    return Stored(choose=choose, cache=_cache(source))


def _format(quant: Fields, algorithm: str, size: Any) -> Format | None:
    name = _NAMES.get(algorithm)
    if name is None:
        allowed = choices_text(algorithm, [*_NAMES, MIXED])
        quant.problems.append(f"quantization_config.quant_algo = '{algorithm}' is not known; {allowed}")
        return None
    if name:
        return FORMATS[name]
    bits = 8 if algorithm.startswith("W8") else 4
    return weight_only(bits, size if isinstance(size, int) and size > 0 else 128 if bits == 4 else 0, zeros=False)


_CACHES = {"FP8": "fp8", "INT8": "int8", "NVFP4": "nvfp4"}
"""Formats of the KV cache by ModelOpt's names."""


def _cache(source: Fields) -> Format | None:
    algorithm = source.text("kv_cache_quant_algo", "").upper()
    if algorithm in _CACHES:
        return FORMATS[_CACHES[algorithm]]
    if algorithm:
        source.problem("kv_cache_quant_algo", f"is not known; {choices_text(algorithm, _CACHES)}")
    if source.raw("kv_cache_scheme") is None:
        return None
    cache = source.mapping("kv_cache_scheme", lenient=True)
    return cache_format(cache.integer("num_bits", 8, most=16), cache.text("type", "float") == "float")


METHODS = dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8", "petit_nvfp4"), modelopt)
