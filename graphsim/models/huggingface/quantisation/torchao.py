"""torchao: one configuration for every nn.Linear, or one per name or pattern and one for the rest.

torchao 0.15, `quantization/quant_api.py` (`FqnToConfig`, `quantize_`); transformers 5.24,
`quantizers/quantizer_torchao.py`: the output head is left out unless a list is given or embeddings are included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import Test, any_name, is_linear, is_output
from graphsim.models.huggingface.quantisation.stored import Stored, first_of, kept_out, refused
from graphsim.models.quantised import Kind, Module
from graphsim.ops.formats import FORMATS, Format, weight_only

_SPELLINGS = {
    "int4_weight_only": "Int4WeightOnlyConfig", "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8_dynamic_activation_float8_weight": "Float8DynamicActivationFloat8WeightConfig",
}  # fmt: skip
"""Names of torchao's configurations in transformers 4."""


def torchao(quant: Fields) -> Stored | None:
    """The configuration of the first name or pattern that matches a module, else that for the rest."""
    kind, data = _configuration(quant)
    ends = quant.flag("include_input_output_embeddings", False)
    skipped = kept_out(quant, "modules_to_not_convert")
    rules: list[tuple[Test, Format | None]] = []
    listed = data.get("fqn_to_config", data.get("module_fqn_to_config"))
    if isinstance(listed, Mapping):
        exact = [name for name in listed if not str(name).startswith("re:") and name != "_default"]
        for name in [*exact, *(name for name in listed if str(name).startswith("re:"))]:
            rules += _rule(quant, str(name), listed[name])
        usual = _format(quant, *_typed(listed.get("_default")))
    else:
        usual = _format(quant, kind, data)

    def choose(module: Module) -> Format | None:
        if skipped is not None and any_name(module, skipped):
            return None
        if module.kind is Kind.TABLE or is_output(module):
            if not ends and (module.kind is Kind.TABLE or skipped is None):
                return None
        elif module.kind is Kind.HEAD:
            return None
        found, own = first_of(rules, module)
        if found:
            return own
        return usual if is_linear(module) or is_output(module) or (ends and module.kind is Kind.TABLE) else None

    return Stored(choose=choose)


def _configuration(quant: Fields) -> tuple[str, Mapping[str, Any]]:
    """The name of the configuration's class, and its fields."""
    said = quant.raw("quant_type")
    if isinstance(said, str):
        further = quant.raw("quant_type_kwargs")
        return _SPELLINGS.get(said, said), further if isinstance(further, Mapping) else {}
    inner = said.get("default", said) if isinstance(said, Mapping) else None
    return _typed(inner)


def _typed(said: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(said, Mapping):
        return "", {}
    data = said.get("_data")
    return str(said.get("_type", "")), data if isinstance(data, Mapping) else {}


def _rule(quant: Fields, name: str, said: Any) -> list[tuple[Test, Format | None]]:
    own = _format(quant, *_typed(said))
    if not name.startswith("re:"):
        return [(name.removesuffix(".weight").__eq__, own)]
    try:
        pattern = re.compile(name[3:])
    except re.error as error:
        quant.problems.append(f"quantization_config: '{name}' is not a regular expression ({error})")
        return []
    return [(lambda module: pattern.fullmatch(module) is not None, own)]


def _format(quant: Fields, kind: str, data: Mapping[str, Any]) -> Format | None:
    """The format of a configuration's weights; None for an empty rule, which leaves the module unquantised."""
    if not kind:
        return None
    group = _group(data)
    if kind in ("Int4WeightOnlyConfig", "Float8DynamicActivationInt4WeightConfig"):
        return weight_only(4, group or 128, wide_zeros=True)
    if kind == "Int8WeightOnlyConfig":
        return weight_only(8, group, zeros=False)
    if kind == "Int8DynamicActivationInt8WeightConfig":
        return FORMATS["int8"]
    if kind in ("IntxWeightOnlyConfig", "Int8DynamicActivationIntxWeightConfig"):
        return weight_only(8, group)  # one value per byte, regardless of its bits
    if kind == "Int8DynamicActivationInt4WeightConfig":
        return weight_only(8, group or 32)
    if kind == "Float8WeightOnlyConfig":
        return FORMATS["fp8_wo"]
    if kind == "Float8DynamicActivationFloat8WeightConfig":
        return FORMATS["fp8_row" if "PerRow" in str(data.get("granularity")) else "fp8"]
    if kind.startswith(("NVFP4", "MX")):
        narrow = "4" in str(data.get("weight_dtype", data.get("elem_dtype", "")))
        return FORMATS["nvfp4" if kind.startswith("NVFP4") else "mxfp4_w4a4" if narrow else "mxfp8"]
    refused(quant, f"torchao's {kind}")
    return None


def _group(data: Mapping[str, Any]) -> int:
    """Number of weights that share a scale; 0 for all weights of an output."""
    size = data.get("group_size")
    for key in ("weight_granularity", "granularity"):
        inner = _typed(data.get(key))[1].get("group_size")
        size = size if inner is None else inner
    return size if isinstance(size, int) and size > 0 else 0


METHODS = {"torchao": torchao}
