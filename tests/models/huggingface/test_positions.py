"""A config's positions are those that engines derive from it."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs

BASE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        ({}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}}, 4096),
        ({"rope_scaling": {"type": "longrope", "factor": 8.0}}, 4096),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, 8192),
        ({"rope_scaling": {"rope_type": "linear", "factor": "many"}}, 4096),
    ],
)
def test_rotary_positions_are_stretched_as_the_config_says(scaling: dict[str, Any], positions: int) -> None:
    """vLLM 0.33, `vllm/config/model.py`: the derived max_model_len."""
    assert gs.load_model(BASE | scaling).max_positions == positions
