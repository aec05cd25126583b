"""PEFT's `adapter_config.json` -> the fields of a LoraConfig, checked against the weights' header beside it.

Fields as of PEFT 0.21 (`LoraConfig` in `peft/tuners/lora/config.py`). What changes cost and is not simulated becomes
a note; what changes none is accepted; what PEFT does not know becomes a note as well.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.lora.matching import MAX_RANK, Matching
from graphsim.reading import Fields, load_mapping
from graphsim.units import short

MAX_HEADER_BYTES = 64 * 2**20

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
    "target_parameters": "adapters on bare parameters",
    "trainable_token_indices": "trained rows of the embedding",
}
"""Fields that change cost in a way that graphsim leaves out, with what they stand for."""


_VARIANTS = (
    "use_dora",
    "use_qalora",
    "use_rslora",
    "use_bdlora",
    "alora_invocation_tokens",
    "qalora_group_size",
    "lora_bias",
)
"""Fields that make a variant."""


def read_adapter(ref: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """LoraConfig's fields for the adapter of a PEFT folder, its `adapter_config.json`, or the data of one.

    Raises ConfigError naming the field, what was found and what is allowed, and where the weights in
    `adapter_model.safetensors` do not have the ranks that the config says.
    """
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "adapter config", lenient=True))
    path = Path(ref).expanduser()
    file = path / "adapter_config.json" if path.is_dir() else path
    config = _read(Fields(load_mapping(file), str(file), lenient=True))
    weights = file.with_name("adapter_model.safetensors")
    if weights.is_file():
        check_weights(config, weights)
    return config


def _read(fields: Fields) -> dict[str, Any]:
    kind = fields.text("peft_type", "LORA")
    if kind != "LORA":
        fields.problem("peft_type", "is not allowed; expected LORA")
    targets = _names(fields, "target_modules")
    if targets is None and not fields.raw("target_parameters"):
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
    notes = _notes(fields)
    alpha = fields.number("lora_alpha", 8.0)
    variant = _variant(fields)
    fields.finish()
    return {
        "rank": rank,
        "alpha": alpha,
        "target_modules": targets or ("all-linear",),
        "exclude_modules": excluded or (),
        "layers_to_transform": layers,
        "layers_pattern": where,
        "rank_pattern": ranks,
        "matching": Matching.PEFT,
        "notes": notes,
        **variant,
    }


_FLAGS = {"use_dora": "dora", "use_qalora": "qa-lora", "use_rslora": "rslora"}


def _variant(fields: Fields) -> dict[str, Any]:
    """Which variant it is, and what it needs to know; PEFT allows one at a time beside rsLoRA's scaling."""
    found = [variant for key, variant in _FLAGS.items() if fields.flag(key, False)]
    blocks = fields.raw("use_bdlora")
    if blocks:
        found.insert(0, "bd-lora")
    if fields.raw("alora_invocation_tokens"):
        found.insert(0, "alora")
    group = fields.integer("qalora_group_size", 16, most=10**6)
    count = 1
    if isinstance(blocks, Mapping):
        count = fields.mapping("use_bdlora", lenient=True).integer("nblocks", 1, most=10**6)
    kind = found[0] if found else "lora"
    return {"variant": kind, "bias": fields.flag("lora_bias", False), "group_size": group, "blocks": count}


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


def _notes(fields: Fields) -> tuple[str, ...]:
    notes = [f"not simulated: {what} ({key})" for key, what in _NOT_SIMULATED.items() if fields.raw(key)]
    if fields.text("bias", "none", ("none", "all", "lora_only")) != "none":
        notes.append("not simulated: trained biases (bias)")
    for key in _NO_COST:
        fields.raw(key)
    unknown = sorted(text.split(" ", 1)[0] for text in Fields.unknown_keys(_strict(fields)))
    return (*notes, *(f"unknown field of the adapter's config: {key}" for key in unknown))


def _strict(fields: Fields) -> Fields:
    """The same fields, saying which keys nobody asked for."""
    strict = Fields(fields.data, fields.where)
    known = {*_NO_COST, *_NOT_SIMULATED, *_VARIANTS, "r", "target_modules", "exclude_modules", "rank_pattern", "bias"}
    for key in known | {"layers_to_transform", "layers_pattern"}:
        strict.raw(key)
    return strict


def check_weights(config: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError if a first factor in a safetensors file does not have its rank; only the header is read."""
    for key, entry in _header(path).items():
        if not key.endswith("lora_A.weight") or not isinstance(entry, Mapping):
            continue
        shape = entry.get("shape")
        if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
            raise ConfigError(f"{path}: tensor '{key}' has shape {short(shape)}, expected two whole numbers")
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        expected = _rank_of(config, module)
        if shape[0] != expected:
            raise ConfigError(f"{path}: tensor '{key}' has rank {shape[0]}, the config says {expected}")


def _rank_of(config: Mapping[str, Any], module: str) -> Any:
    for pattern, rank in config["rank_pattern"].items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return rank
    return config["rank"]


def _header(path: Path) -> Mapping[str, Any]:
    """A safetensors header: its length in 8 bytes, then JSON (https://github.com/huggingface/safetensors)."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ConfigError(f"{path}: has a header of {length} bytes, expected 2 to {MAX_HEADER_BYTES}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: its header is not JSON, expected a safetensors file") from None
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: its header is a {type(header).__name__}, expected a mapping of tensors")
    return header
