"""What transformers assumes where a config.json leaves a field out, as published configs often do.

The values in `defaults.json` are those of the configuration classes of transformers 5.24.0 (read on
2026-11-29); `tests/data/make_hf_defaults.py` makes the file. Hidden size and number of layers are never assumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_SPELLINGS = (
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query"),
    ("head_dim", "kv_channels", "attention_head_dim"),
    ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "block_ff_dim"),
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk"),
    ("tie_word_embeddings", "tie_embedding"),
)
"""Names of the same thing: where a config uses one of them, none of the others is assumed."""

_SIZES = ("vocab_size", *(name for group in _SPELLINGS[:4] + _SPELLINGS[5:7] for name in group))


def completed(kind: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config with the left-out fields of its `model_type`, and a note that names the sizes among them."""
    table = _table()
    known = table.get(kind) or table.get(f"{kind}_text", {})
    if config.get("hidden_size", config.get("n_embd", config.get("d_model"))) is None:
        return dict(config), ()
    given = set(config) | {name for group in _SPELLINGS if any(other in config for other in group) for name in group}
    assumed = {name: value for name, value in known.items() if name not in given}
    sizes = [f"{name} = {value}" for name, value in assumed.items() if name in _SIZES and value is not None]
    note = (f"left out of the config, so assumed as transformers does: {', '.join(sizes)}",) if sizes else ()
    return {**assumed, **config}, note


@cache
def _table() -> dict[str, dict[str, Any]]:
    data: dict[str, dict[str, Any]] = json.loads(
        files("graphsim.models.huggingface").joinpath("defaults.json").read_text()
    )
    return data
