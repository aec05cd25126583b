"""The variant of LoRA of an `adapter_config.json` with `peft_type` LORA, and its fields."""

from __future__ import annotations

from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.variants import known


def lora_variant(fields: Fields) -> dict[str, Any]:
    """The variant and its fields; PEFT allows one at a time, with or without rsLoRA's scaling. Problems are noted in
    `fields`.
    """
    flagged = [variant for variant in known().values() if variant.peft_flag and fields.flag(variant.peft_flag, False)]
    found = [variant.name for variant in sorted(flagged, key=lambda variant: variant.fused)]
    blocks = _blocks(fields)
    if blocks:
        found.insert(0, "bd-lora")
    if fields.raw("alora_invocation_tokens"):
        found.insert(0, "alora")
    group = fields.integer("qalora_group_size", 16, most=10**6)
    bias = fields.flag("lora_bias", False)
    kind = known()[found[0] if found else "lora"]
    if bias and not kind.bias:
        fields.problem("lora_bias", f"is not allowed with {kind.peft_flag}; expected False")
    return {"variant": kind.name, "bias": bias, "group_size": group, **blocks}


def _blocks(fields: Fields) -> dict[str, Any]:
    """BD-LoRA's fields, under the names of a LoraConfig's; none if the adapter has no blocks."""
    if not fields.raw("use_bdlora"):
        return {}
    inner = fields.mapping("use_bdlora")
    sides = {f"blocks_{side}": _parts(inner, f"target_modules_bd_{side}") for side in "ab"}
    return {
        **(sides if any(sides.values()) else {}),
        "blocks": inner.integer("nblocks", 1, most=10**6),
        "blocks_strict": inner.flag("match_strict", True),
    }


def _parts(fields: Fields, key: str) -> tuple[str, ...]:
    value = fields.raw(key)
    if value is None or (isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)):
        return tuple(value or ())
    fields.problem(key, "is not allowed; expected a list of names")
    return ()
