"""Defaults of transformers for fields that a config.json leaves out, as published configs often do.

The values in `defaults.json` are those of the configuration classes of transformers 5.24.0 (read on
2026-11-29); `tests/data/make_hf_defaults.py` generates the file. Hidden size and number of layers have defaults only in
nested configs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_SPELLINGS = (
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query", "num_attention_groups"),
    ("head_dim", "kv_channels", "attention_head_dim"),
    ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "block_ff_dim"),
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk"),
    ("tie_word_embeddings", "tie_embedding"),
    ("hidden_size", "n_embd", "d_model"),
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    ("layers_block_type", "layer_types", "hybrid_override_pattern"),
    ("n_groups", "mamba_n_groups"),
    ("conv_kernel", "mamba_d_conv"),
    ("use_conv_bias", "mamba_conv_bias"),
    ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    ("attention_bias", "use_qkv_bias"),
)
"""Groups of equivalent keys: if a config has one of them, the others get no default."""

_SIZES = ("vocab_size", *(name for group in _SPELLINGS[:4] + _SPELLINGS[5:7] for name in group))


def completed(kind: str, config: Mapping[str, Any], *, nested: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config with defaults for missing fields of its `model_type`, and a note that names the sizes among them.

    A switch that is on by default but given as null is off, as in transformers.
    nested: whether it is in a multimodal config, which often leaves out even hidden size and number of layers
    """
    table = _table()
    known = {**table.get(f"{kind}_text", {}), **table.get(kind, {})}
    if not nested:
        known = {name: value for name, value in known.items() if name not in _NEVER}
        if config.get("hidden_size", config.get("n_embd", config.get("d_model"))) is None:
            return dict(config), ()
    given = set(config) | {name for group in _SPELLINGS if any(other in config for other in group) for name in group}
    assumed = {name: value for name, value in known.items() if name not in given}
    stated = (*_SIZES, *_NEVER)
    sizes = [f"{name} = {value}" for name, value in assumed.items() if name in stated and value is not None]
    note = (f"left out of the config, so assumed as transformers does: {', '.join(sizes)}",) if sizes else ()
    off = {name: False for name, value in known.items() if value is True and name in config and config[name] is None}
    return {**assumed, **config, **off}, note


def whole_defaults(kind: str) -> dict[str, Any]:
    """The defaults of a multimodal config itself, without its nested ones."""
    return _table().get(kind, {})


_NEVER = ("hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Keys that never have defaults in a standalone model."""


def tied_by_default(kind: str) -> bool | None:
    """Whether a multimodal `model_type` ties its embeddings by default; None if unknown."""
    found: bool | None = _table().get(kind, {}).get("tie_word_embeddings")
    return found


def nested_defaults(kind: str, family: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A tower's nested config with defaults for missing fields, and the sizes among them as text.

    family: `model_type` whose defaults apply if transformers has none for `kind`
    """
    known = _table().get(kind) or _table().get(family, {})
    given = {name for name, value in config.items() if value is not None}
    spelt = {name for group in (*_SPELLINGS, *_TOWER_SPELLINGS) if given.intersection(group) for name in group}
    assumed = {name: value for name, value in known.items() if name not in given | spelt}
    sizes = [f"{name} = {value}" for name, value in assumed.items() if name in _TOWER_SIZES]
    return {**assumed, **{name: config[name] for name in given}}, ", ".join(sizes)


_TOWER_SPELLINGS = (
    ("encoder_layers", "num_hidden_layers"), ("encoder_attention_heads", "num_attention_heads"),
    ("encoder_ffn_dim", "intermediate_size"),
)  # fmt: skip
"""Further groups of equivalent keys, in audio towers."""

_TOWER_SIZES = (
    "hidden_size", "embed_dim", "intermediate_size", "num_hidden_layers", "depth", "num_attention_heads", "num_heads",
    "patch_size", "image_size",
)  # fmt: skip


@cache
def _table() -> dict[str, dict[str, Any]]:
    data: dict[str, dict[str, Any]] = json.loads(
        files("graphsim.models.huggingface").joinpath("defaults.json").read_text()
    )
    return data
