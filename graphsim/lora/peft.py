"""PEFT's `adapter_config.json` -> the fields of a LoraConfig, checked against the weights' header next to it.

Fields as of PEFT 0.21 (`tuners/*/config.py`). Fields without effect on cost are accepted; fields unknown to PEFT
become a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import expanded, is_folder
from graphsim.files.reading import Fields, load_mapping
from graphsim.lora.adapter_weights import check_factors, read_tensors
from graphsim.lora.matching import Matching
from graphsim.lora.methods import NOT_SIMULATED, TOKENS, methods, simulated
from graphsim.lora.peft_lora import lora_variant
from graphsim.lora.ranks import read_ranks
from graphsim.lora.variant import Variant
from graphsim.lora.variants import known
from graphsim.units import short

_NO_COST = (
    "alpha", "alpha_pattern", "arrow_config", "auto_mapping", "base_model_name_or_path", "beta1", "beta2",
    "boft_dropout", "coft", "corda_config", "d_initial", "delora_lambda", "deltaT", "eps", "eva_config",
    "fan_in_fan_out", "ia3_dropout", "inference_mode", "init_ia3_weights", "init_logits_std", "init_lora_weights",
    "init_vector_bank_bound", "init_weights", "kasa_config", "lambda_pattern", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "mask_type", "megatron_config", "megatron_core", "miss_dropout", "module_dropout",
    "monteclora_config", "orth_reg_weight", "peft_type", "peft_version", "projection_prng_key", "random_loc_seed",
    "random_seed", "randlora_alpha", "randlora_dropout", "rank_dropout", "rank_dropout_scale", "revision",
    "runtime_config", "save_only_topk_weights", "save_projection", "scaling", "sparse", "target_r", "task_type",
    "tfinal", "tinit", "total_step", "use_effective_conv2d", "velora_config", "vera_dropout", "very_sparse",
    "vblora_dropout",
)  # fmt: skip
"""Fields without effect on the graph of an inference step, including sizes of convolutions, which no model here has."""

_REFUSED = ("layer_replication", "trainable_token_indices")
"""Fields that engines may refuse by their names in the file."""


def read_adapter(ref: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """LoraConfig's fields for the adapter of a PEFT folder, its `adapter_config.json`, or the data of one.

    Raises ConfigError naming the field, what was found and what is allowed, and if `adapter_model.safetensors` is
    invalid, or the weights are in a file type that is not read.
    """
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "adapter config", lenient=True))
    if not isinstance(ref, str | Path):
        raise ConfigError(f"adapter = {short(ref)} is not allowed; expected a PEFT folder, a file or a mapping")
    path = expanded(ref)
    file = path / "adapter_config.json" if is_folder(path) else path
    config = _read(Fields(load_mapping(file), str(file), lenient=True))
    tensors = read_tensors(file.parent)
    if tensors is not None:
        if known()[config.get("variant", "lora")].peft_type in ("LORA", "ADALORA") and config["target_modules"] != ():
            check_factors(config, tensors)
        config["tensors"] = tensors
        config["notes"] = (*config["notes"], *tensors.notes)
    return config


def _read(fields: Fields) -> dict[str, Any]:
    method = _method(fields)
    if method == TOKENS:
        config = _tokens(fields)
    else:
        kind = methods().get(method)
        chosen = lora_variant(fields) if kind is None else {"variant": kind.name, "options": _options(fields, kind)}
        ranks = read_ranks(fields, known()[str(chosen["variant"])])
        config = {**chosen, **ranks, **_targets(fields), **_beside(fields)}
    if method in ("LORA", "ADALORA"):
        config["alpha"] = fields.number("lora_alpha", 8.0)
    biases = _biases(fields)
    notes = _unknown(fields)
    fields.finish()
    return {
        **config, "trained_biases": biases, "matching": Matching.PEFT, "notes": notes, "left_out": _left_out(fields),
    }  # fmt: skip


def _method(fields: Fields) -> str:
    """The `peft_type`. Raises ConfigError for one that is not simulated or does not exist."""
    method = fields.text("peft_type", "LORA")
    if not isinstance(method, str) or method in simulated():
        return str(method)
    listed = ", ".join(simulated())
    if method in NOT_SIMULATED:
        why = f", since {NOT_SIMULATED[method]}" if NOT_SIMULATED[method] else ""
        fields.problem("peft_type", f"is not simulated{why}; supported: {listed}")
    else:
        fields.problem(
            "peft_type", f"is not a method of PEFT 0.21; {choices_text(method, [*simulated(), *NOT_SIMULATED])}"
        )
    fields.finish()
    return "LORA"


def _options(fields: Fields, kind: Variant) -> dict[str, Any]:
    """The variant's own fields, unchecked; they are checked with the whole adapter."""
    given = {option.name: fields.raw(option.name) for option in kind.options}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }


def _targets(fields: Fields) -> dict[str, Any]:
    targets, parameters = names(fields, "target_modules"), name_list(fields, "target_parameters")
    layers = _layers(fields)
    if layers is not None and isinstance(targets, str):
        fields.problem("layers_to_transform", "is not allowed with a regular expression for target_modules")
    return {
        "target_modules": () if targets is None and parameters else targets,
        "target_parameters": parameters,
        "exclude_modules": names(fields, "exclude_modules") or (),
        "layers_to_transform": layers,
        "layers_pattern": names(fields, "layers_pattern"),
    }


def _beside(fields: Fields) -> dict[str, Any]:
    """Weights trained in addition to the factors, and replicated layers."""
    rows, stretches = fields.raw("trainable_token_indices"), fields.raw("layer_replication")
    return {
        "modules_to_save": name_list(fields, "modules_to_save"),
        "trainable_token_indices": () if rows is None else rows,
        "layer_replication": () if stretches is None else stretches,
        "ensure_weight_tying": fields.flag("ensure_weight_tying", False),
    }


def _tokens(fields: Fields) -> dict[str, Any]:
    """Rows of the embedding, or of the named tables."""
    rows, targets = fields.raw("token_indices"), names(fields, "target_modules")
    if not isinstance(rows, list) or not rows:
        fields.problem("token_indices", "is not allowed; expected a list of row numbers")
    if isinstance(targets, str):
        fields.problem("target_modules", "is not allowed; expected a list of names")
        targets = None
    given = rows if targets is None else dict.fromkeys(targets, rows)
    return {"target_modules": (), "trainable_token_indices": given or (), "rank": 1}


def _biases(fields: Fields) -> str:
    value = fields.text("bias", "none")
    if value in ("none", "all"):
        return str(value)
    if not str(value).endswith("_only"):
        fields.problem("bias", "is not allowed; expected none, all or lora_only")
    return "targets"


def name_list(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of names, by default empty."""
    value = fields.raw(key)
    if value is None or (isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)):
        return tuple(value or ())
    fields.problem(key, "is not allowed; expected a list of names")
    return ()


def names(fields: Fields, key: str) -> tuple[str, ...] | str | None:
    """A list of names or an expression; None if there is neither."""
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
    fields.problem("layers_to_transform", "is not allowed; expected layer indices from 0")
    return None


def _left_out(fields: Fields) -> tuple[str, ...]:
    """Fields for features that some engines do not support."""
    biases = fields.raw("bias", "none")
    return (*(key for key in _REFUSED if fields.raw(key)), *(["bias"] if biases not in (None, "none") else []))


def _unknown(fields: Fields) -> tuple[str, ...]:
    """Notes on fields that were not read."""
    strict = Fields(fields.data, fields.where)
    kinds = known().values()
    asked = {*_NO_COST, *_ASKED, *(kind.peft_flag for kind in kinds), *(kind.pattern_field for kind in kinds)}
    asked |= {kind.rank_field for kind in kinds} | {option.name for kind in kinds for option in kind.options}
    for key in asked - {""}:
        strict.raw(key)
    unknown = sorted(text.split(" ", 1)[0] for text in Fields.unknown_keys(strict))
    return tuple(f"unknown field of the adapter's config: {key}" for key in unknown)


_ASKED = (
    "alora_invocation_tokens", "bias", "ensure_weight_tying", "exclude_modules", "layer_replication",
    "layers_pattern", "layers_to_transform", "lora_bias", "modules_to_save", "qalora_group_size", "r",
    "target_modules", "target_parameters", "token_indices", "trainable_token_indices", "use_bdlora",
)  # fmt: skip
"""Fields that are read, in addition to those of variants."""
