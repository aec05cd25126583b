"""AMD Quark: one scheme for all linear layers, others for wildcards, and a list of excluded modules.

vLLM 0.15, `quantization/quark/quark.py` (`_find_matched_config`) and `quark/utils.py` (`should_ignore_layer`);
AMD Quark documentation, "Configuring PyTorch Quantization from scratch".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import Test, any_name, is_linear, is_output, regular, wildcards
from graphsim.models.huggingface.quantisation.stored import Stored, refused, strings
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, fp8_blocks, weight_only


def quark(quant: Fields) -> Stored:
    """The scheme of the first matching wildcard, else that of the module's class, else the global one."""
    usual = _scheme(quant, quant.raw("global_quant_config"), "global_quant_config")
    layers, classes = (_schemes(quant, key) for key in ("layer_quant_config", "layer_type_quant_config"))
    rules = [(_one(name), own) for name, own in layers.items()]
    by_class = next((own for name, own in classes.items() if "Linear" in name), usual)
    skipped = _skipped(quant)

    def choose(module: Module) -> Format | None:
        if any_name(module, skipped) or module.kind is Kind.TABLE:
            return None
        if not is_linear(module) and not is_output(module):
            return None
        return next((own for test, own in rules if any_name(module, test)), by_class)

    return Stored(choose=choose, cache=_cache(quant))


def _one(pattern: str) -> Test:
    return wildcards([pattern])


def _skipped(quant: Fields) -> Test:
    entries = strings(quant, "exclude") or []
    plain = wildcards([entry for entry in entries if not entry.startswith("re:")])
    patterns: list[Test] = []
    for entry in entries:
        if entry.startswith("re:"):
            try:
                patterns.append(regular(entry[3:]))
            except re.error as error:
                quant.problems.append(f"quantization_config.exclude: '{entry}' is not a regular expression ({error})")
    return lambda name: plain(name) or any(test(name) for test in patterns)


def _schemes(quant: Fields, key: str) -> dict[str, Format | None]:
    found = quant.raw(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        quant.problem(key, "is not allowed; expected a mapping of names to schemes")
        return {}
    return {str(name): _scheme(quant, scheme, f"{key}['{name}']") for name, scheme in found.items()}


def _scheme(quant: Fields, scheme: Any, where: str) -> Format | None:
    """The format of a scheme's weights; the narrower one if two are combined."""
    if not isinstance(scheme, Mapping) or scheme.get("weight") is None:
        return None
    weight, inputs = scheme["weight"], scheme.get("input_tensors")
    several = [one for one in (weight if isinstance(weight, list) else [weight]) if isinstance(one, Mapping)]
    wide = inputs is None
    found = [own for one in several if (own := _format(one, wide, str(inputs))) is not None]
    if not found:
        refused(quant, f"Quark's {where}")
        return None
    return min(found, key=lambda own: own.bytes)


def _format(weight: Mapping[str, Any], wide: bool, inputs: str) -> Format | None:
    kind, scheme, size = str(weight.get("dtype")), weight.get("qscheme"), weight.get("group_size")
    group = size if isinstance(size, int) and size > 0 and scheme == "per_group" else 0
    if kind.startswith("fp8"):
        if group or scheme == "per_block":
            block = weight.get("block_size") or [1, group or 128]
            return fp8_blocks(*block) if isinstance(block, list) and len(block) == 2 else None
        return FORMATS["fp8_wo" if wide else "fp8_channel" if scheme == "per_channel" else "fp8"]
    if kind == "mx" or kind.startswith("fp4"):
        if group == 16:
            return FORMATS["nvfp4_wo" if wide else "nvfp4"]
        return FORMATS["mxfp4_w4a4" if "fp4" in inputs else "mxfp4"]
    if kind.startswith("fp6"):
        return FORMATS["mxfp6"]
    if kind in ("int8", "uint8") and not wide and not group:
        return FORMATS["int8"]
    found = re.fullmatch(r"u?int([2-8])", kind)
    return weight_only(int(found[1]), group, zeros=weight.get("symmetric") is False) if found else None


def _cache(quant: Fields) -> Format | None:
    """The format of the KV cache: that of the outputs of k and v projections, if the export names these."""
    export, layers = quant.raw("export"), quant.raw("layer_quant_config")
    group = export.get("kv_cache_group") if isinstance(export, Mapping) else None
    direct = quant.raw("kv_cache_quant_config")
    schemes: list[Any] = list(direct.values()) if isinstance(direct, Mapping) else []
    if isinstance(group, list) and isinstance(layers, Mapping):
        schemes += [layers[name] for name in group if isinstance(name, str) and name in layers]
    for scheme in schemes:
        output = scheme.get("output_tensors") if isinstance(scheme, Mapping) else None
        if isinstance(output, Mapping):
            return FORMATS["fp8" if str(output.get("dtype")).startswith("fp8") else "int8"]
    return None


METHODS = {"quark": quark}
