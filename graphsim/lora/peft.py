"""PEFT's `adapter_config.json` -> the fields of a LoraConfig, checked against the weights' header beside it.

Fields as of PEFT 0.21 (`LoraConfig` in `peft/tuners/lora/config.py`). What changes cost and is not simulated becomes
a note; what changes none is accepted; what PEFT does not know becomes a note as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.reading import Fields, load_mapping
from graphsim.lora.adapter_weights import check_weights
from graphsim.lora.matching import MAX_RANK, Matching
from graphsim.lora.variants import known
from graphsim.units import short

_NO_COST = (
    "alpha_pattern", "arrow_config", "auto_mapping", "base_model_name_or_path",
    "corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "kasa_config", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core",
    "monteclora_config", "peft_type", "peft_version", "revision", "runtime_config", "task_type",
    "velora_config",
)  # fmt: skip
"""Fields that leave the graph of an inference step as it is."""

_NOT_SIMULATED = {
    "layer_replication": "replicated layers",
    "modules_to_save": "modules trained in full",
    "trainable_token_indices": "trained rows of the embedding",
}
"""Fields that change cost in a way that graphsim leaves out, with what they stand for."""


_VARIANTS = (
    "use_bdlora",
    "alora_invocation_tokens",
    "qalora_group_size",
    "lora_bias",
)
"""Fields that say more of a variant than a flag."""


def read_adapter(ref: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """LoraConfig's fields for the adapter of a PEFT folder, its `adapter_config.json`, or the data of one.

    Raises ConfigError naming the field, what was found and what is allowed, and where the weights in
    `adapter_model.safetensors` are not those of the adapter that the config describes.
    """
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "adapter config", lenient=True))
    if not isinstance(ref, str | Path):
        raise ConfigError(f"adapter = {short(ref)} is not allowed; expected a PEFT folder, a file or a mapping")
    path = Path(ref).expanduser()
    file = path / "adapter_config.json" if path.is_dir() else path
    config = _read(Fields(load_mapping(file), str(file), lenient=True))
    weights = file.with_name("adapter_model.safetensors")
    if weights.is_file():
        config["notes"] = (*config["notes"], *check_weights(config, weights))
    return config


def _read(fields: Fields) -> dict[str, Any]:
    kind = fields.text("peft_type", "LORA")
    if kind != "LORA":
        fields.problem("peft_type", "is not allowed; expected LORA")
    targets, parameters = _names(fields, "target_modules"), _list(fields, "target_parameters")
    if targets is None and not parameters:
        fields.problems.append(
            "target_modules is missing, expected a list of names, a regular expression or all-linear"
        )
    pattern = fields.mapping("rank_pattern", lenient=True)
    ranks = {key: pattern.integer(key, most=MAX_RANK) for key in list(pattern.keys())}
    rank = fields.integer("r", 8, most=MAX_RANK)
    excluded = _names(fields, "exclude_modules")
    layers = _layers(fields)
    if layers is not None and isinstance(targets, str):
        fields.problem("layers_to_transform", "is not allowed with a regular expression for target_modules")
    where = _names(fields, "layers_pattern")
    notes, left_out = _notes(fields)
    alpha = fields.number("lora_alpha", 8.0)
    saved = _list(fields, "modules_to_save")
    variant = _variant(fields)
    fields.finish()
    return {
        "rank": rank,
        "alpha": alpha,
        "target_modules": targets or (),
        "target_parameters": parameters,
        "modules_to_save": saved,
        "exclude_modules": excluded or (),
        "layers_to_transform": layers,
        "layers_pattern": where,
        "rank_pattern": ranks,
        "matching": Matching.PEFT,
        "notes": notes,
        "left_out": left_out,
        **variant,
    }


def _variant(fields: Fields) -> dict[str, Any]:
    """Which variant it is, and what it needs to know; PEFT allows one at a time beside rsLoRA's scaling."""
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
    """BD-LoRA's fields, under the names of a LoraConfig's; none where the adapter has no blocks."""
    if not fields.raw("use_bdlora"):
        return {}
    inner = fields.mapping("use_bdlora")
    sides = {key: _list(inner, f"target_modules_bd_{key[-1]}") for key in ("blocks_a", "blocks_b")}
    return {
        **(sides if any(sides.values()) else {}),
        "blocks": inner.integer("nblocks", 1, most=10**6),
        "blocks_strict": inner.flag("match_strict", True),
    }


def _list(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of names, by default empty."""
    value = fields.raw(key)
    if value is None or (isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)):
        return tuple(value or ())
    fields.problem(key, "is not allowed; expected a list of names")
    return ()


def _names(fields: Fields, key: str) -> tuple[str, ...] | str | None:
    value = fields.raw(key)
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) and entry for entry in value):
        return tuple(value)
    fields.problem(key, "is not allowed; expected a string or a list of names")
    return None


def _layers(fields: Fields) -> tuple[int, ...] | None:
    value = fields.raw("layers_to_transform")
    entries = [value] if isinstance(value, int) else value
    if entries is None:
        return None
    if isinstance(entries, list) and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in entries):
        return tuple(entries)
    fields.problem("layers_to_transform", "is not allowed; expected layer indices from 0 up")
    return None


def _notes(fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is not simulated or not known, in sentences; and the fields that say what is not simulated."""
    left_out = [key for key in _NOT_SIMULATED if fields.raw(key)]
    notes = [f"not simulated: {_NOT_SIMULATED[key]} ({key})" for key in left_out]
    if fields.text("bias", "none", ("none", "all", "lora_only")) != "none":
        notes.append("not simulated: trained biases (bias)")
        left_out.append("bias")
    for key in _NO_COST:
        fields.raw(key)
    unknown = sorted(text.split(" ", 1)[0] for text in Fields.unknown_keys(_strict(fields)))
    notes += [f"unknown field of the adapter's config: {key}" for key in unknown]
    return tuple(notes), tuple(key for key in left_out if key != "modules_to_save")


def _strict(fields: Fields) -> Fields:
    """The same fields, saying which keys nobody asked for."""
    strict = Fields(fields.data, fields.where)
    keys = {*_NO_COST, *_NOT_SIMULATED, *_VARIANTS, "r", "target_modules", "exclude_modules", "rank_pattern", "bias"}
    keys |= {variant.peft_flag for variant in known().values() if variant.peft_flag}
    for key in keys | {"target_parameters", "layers_to_transform", "layers_pattern"}:
        strict.raw(key)
    return strict
