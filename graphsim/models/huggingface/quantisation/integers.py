"""GPTQ, AWQ, auto-round: low-bit integers with one scale per group of inputs.

All three quantise the blocks of the language model; embeddings, output head, routers and towers are not quantised
unless the config states otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import (
    Test,
    any_name,
    in_blocks,
    is_linear,
    is_output,
    regular,
    substrings,
    texts_in,
)
from graphsim.models.huggingface.quantisation.stored import Stored, strings
from graphsim.models.quantised import Module
from graphsim.ops.formats import FORMATS, Format, weight_only

_BITS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Integers:
    """The settings of a weight in a config or in one of its rules."""

    bits: int
    group: int
    zeros: bool
    ordered: bool = False

    @property
    def format(self) -> Format | None:
        """The format of integer weights; None for 16 bits and more."""
        if self.bits >= 16:
            return None
        return weight_only(self.bits, max(self.group, 0), zeros=self.zeros, ordered=self.ordered)


def _integers(quant: Fields, zeros: bool) -> _Integers:
    bits = quant.integer("bits", quant.integer("w_bit", 4, least=2, most=8), least=2, most=8)
    group = quant.integer("group_size", quant.integer("q_group_size", 128, least=-1), least=-1)
    return _Integers(bits=bits, group=group, zeros=zeros)


def _changed(quant: Fields, rule: Any, where: str, base: _Integers) -> _Integers:
    """The base settings, overridden by a rule for some modules."""
    if not isinstance(rule, Mapping):
        quant.problems.append(f"{where} is not a mapping of bits, group_size and the like")
        return base
    own = quant.child(rule, where, lenient=True)
    zeros = not own.flag("sym", not base.zeros)
    return replace(
        base, bits=own.integer("bits", base.bits, least=2, most=32), zeros=zeros,
        group=own.integer("group_size", base.group, least=-1), ordered=own.flag("desc_act", base.ordered),
    )  # fmt: skip


def gptq(quant: Fields) -> Stored:
    """GPTQ and GPTQModel, whose `dynamic` changes or excludes modules that match regular expressions.

    GPTQModel 2.1, README, "Dynamic Quantization"; vLLM 0.15, `quantization/utils/gptq_utils.py`
    (`get_dynamic_override`, `is_layer_gptq_quantized`). Symmetric weights have no zero points in an engine's memory,
    although files keep them.
    """
    quant.raw("format")  # the order of values within a file
    base = replace(_integers(quant, zeros=not quant.flag("sym", True)), ordered=quant.flag("desc_act", False))
    rules = _dynamic(quant, base)
    listed = list(texts_in(quant.raw("modules_in_block_to_quantize")))
    inside = substrings(listed) if listed else None
    output = quant.flag("lm_head", False)

    def choose(module: Module) -> Format | None:
        if not in_blocks(module) and not (is_output(module) and (output or _names_head(rules))):
            return None
        if in_blocks(module) and inside is not None and not any_name(module, inside):
            return None
        for test, own in rules:
            if any_name(module, test):
                return own.format if own else None
        return base.format if in_blocks(module) or output else None

    return Stored(choose=choose)


def _names_head(rules: list[tuple[Test, _Integers | None]]) -> bool:
    """Whether a rule with formats matches the output head specifically, not all modules."""
    return any(own is not None and test("lm_head") and not test("model.layers.0.") for test, own in rules)


def _dynamic(quant: Fields, base: _Integers) -> list[tuple[Test, _Integers | None]]:
    found = quant.raw("dynamic")
    if found is None:
        return []
    if not isinstance(found, Mapping):
        quant.problem("dynamic", "is not allowed; expected a mapping of patterns to changes")
        return []
    rules: list[tuple[Test, _Integers | None]] = []
    for pattern, rule in found.items():
        where = f"quantization_config.dynamic['{pattern}']"
        out = str(pattern).startswith("-:")
        try:
            test = regular(re.sub(r"^[-+]:", "", str(pattern)))
        except re.error as error:
            quant.problems.append(f"{where} is not a regular expression ({error})")
            continue
        rules.append((test, None if out else _changed(quant, rule, where, base)))
    return rules


def awq(quant: Fields) -> Stored:
    """AWQ: the blocks' linear layers except those whose names contain an entry of `modules_to_not_convert`.

    AutoAWQ, `awq/quantize/quantizer.py` and `awq/utils/module.py` (`exclude_layers_to_not_quantize`); vLLM 0.15,
    `quantization/awq.py` (`is_layer_skipped` with `skip_with_substr`).
    """
    own = _integers(quant, zeros=quant.flag("zero_point", True)).format
    skipped = substrings(strings(quant, "modules_to_not_convert") or ())
    return Stored(choose=lambda module: own if in_blocks(module) and not any_name(module, skipped) else None)


_FLOATS = {"mx_fp": {4: "mxfp4", 8: "mxfp8", 6: "mxfp6"}, "nv_fp": {4: "nvfp4"}, "fp": {8: "fp8_channel"}}
"""auto-round's data types other than integers."""


def auto_round(quant: Fields) -> Stored:
    """auto-round: exact names in `extra_config`, then its patterns, then the named blocks (or all), by precedence.

    vLLM 0.15, `quantization/inc.py` (`get_layer_config`); auto-round 0.9, `auto_round/export/export_to_autoround`.
    """
    base = _integers(quant, zeros=not quant.flag("sym", True))
    kind = quant.text("data_type", "int")
    blocks = _blocks(quant)
    extra = quant.raw("extra_config") or {}
    if not isinstance(extra, Mapping):
        quant.problem("extra_config", "is not allowed; expected a mapping of names to changes")
        extra = {}
    exact = {
        str(name): _of_kind(
            quant, kind, _changed(quant, rule, f"quantization_config.extra_config['{name}']", base), rule
        )
        for name, rule in extra.items()
    }
    patterns = [(re.compile(name).search, own) for name, own in exact.items() if _is_pattern(name)]
    usual = _of_kind(quant, kind, base, None)

    def choose(module: Module) -> Format | None:
        if not is_linear(module) and module.kind.value not in ("head", "bare"):
            return None
        names = [name for part in module.names for name in part]
        for name in names:
            if name in exact:
                return exact[name]
        for search, own in patterns:
            if any(search(name) for name in names):
                return own
        inside = any(name.startswith(blocks) for name in names) if blocks else True
        return usual if inside and (module.usual or bool(blocks) and is_linear(module) and module.layer < 0) else None

    return Stored(choose=choose)


def _is_pattern(name: str) -> bool:
    if not set(name) & set(r"*+?^$()[]{}|\\"):
        return False
    try:
        re.compile(name)
    except re.error:
        return False
    return True


def _blocks(quant: Fields) -> tuple[str, ...]:
    """The paths of quantised blocks; empty for all blocks."""
    found = quant.raw("block_name_to_quantize") or quant.raw("to_quant_block_names")
    return tuple(name.strip() for text in texts_in(found) for name in text.split(",") if name.strip())


def _of_kind(quant: Fields, kind: str, own: _Integers, rule: Any) -> Format | None:
    """The format of a data type with a rule's number of bits."""
    kind = str(rule.get("data_type", kind)) if isinstance(rule, Mapping) else kind
    if own.bits >= 16 or kind.startswith("int"):
        return own.format
    for front, names in _FLOATS.items():
        if kind.startswith(front) and own.bits in names:
            return FORMATS[names[own.bits]]
    quant.problems.append(
        f"quantization_config.data_type = '{kind}' in {own.bits} bits is not known; expected int or mx_fp"
    )
    return None


METHODS = {
    "gptq": gptq, "gptq_marlin": gptq, "awq": awq, "awq_marlin": awq, "auto-round": auto_round, "inc": auto_round,
}  # fmt: skip
