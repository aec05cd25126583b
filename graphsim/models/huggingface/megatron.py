"""GPTs trained by Megatron-LM, described by the arguments saved with its checkpoints.

Names and defaults as in Megatron-LM core 0.14, `megatron/training/arguments.py`, and its modules
(`megatron/core/models/gpt/gpt_layer_specs.py`), whose names Megatron Bridge's adapters also use.
"""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, padded, pre_norm, read_dims, size
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer

_NORMS = {"LayerNorm": "layer", "RMSNorm": "rms"}
_POSITIONS = ("learned_absolute", "rope", "yarn", "none")
_PARTS = (
    *("num_experts", "num_moe_experts", "multi_latent_attention", "is_hybrid_model", "hybrid_override_pattern"),
    *("mtp_num_layers", "heterogeneous_layers_config_path", "window_size", "attention_output_gate"),
)
"""Arguments for parts that these models do not have."""


def megatron(fields: Fields, name: str) -> ModelConfig:
    """A GPT: fused qkv, LayerNorm, biases, learned positions and an output head tied to the embedding, by default."""
    for key in _PARTS:
        if fields.raw(key):
            fields.problem(key, "is not simulated with a Megatron GPT; expected no such argument")
    grouped = fields.flag("group_query_attention", False)
    groups = size(fields, "num_query_groups", default=1)
    gated = fields.flag("swiglu", False)
    padded(fields)
    _default_width(fields, gated)
    untied = fields.flag("untie_embeddings_and_output_weights", not fields.data.get("tie_word_embeddings", True))
    dims = read_dims(fields, tied=not untied, kv_heads=groups if grouped else None)
    if dims.tied == untied:
        problem = "contradicts untie_embeddings_and_output_weights; expected one of the two"
        fields.problem("tie_word_embeddings", problem)
    kind = _NORMS[fields.text("normalization", "LayerNorm", choices=_NORMS)]
    bias = fields.flag("add_bias_linear", not fields.flag("disable_bias_linear", False))
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=fields.flag("add_qkv_bias", False) or bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD if fields.flag("qk_layernorm", False) else QkNorm.NONE,
        norm_vectors=2 if kind == "layer" else 1,
        rope=_position_kind(fields) in ("rope", "yarn"),
        names=AttentionNames(
            fused="self_attention.linear_qkv",
            o="self_attention.linear_proj",
            q_norm="self_attention.q_layernorm",
            k_norm="self_attention.k_layernorm",
        ),
    )
    both = "mlp.linear_fc1"
    names = MlpNames(fused=both, up=both, down="mlp.linear_fc2")
    mlp = Mlp(intermediate=dims.intermediate, gated=gated, bias=bias, names=names)
    learned = _position_kind(fields) == "learned_absolute"
    if learned and not dims.positions:
        fields.problems.append("max_position_embeddings is missing, expected the number of learned positions")
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp, kind, ("input_layernorm", "pre_mlp_layernorm"))] * dims.layers,
        stem=Stem(
            vocab_size=dims.vocab,
            positions=dims.positions if learned else 0,
            module="embedding.word_embeddings",
            position_module="embedding.position_embeddings",
        ),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            norm=NormLayer(name="decoder.final_layernorm", kind=kind),
            module="output_layer",
        ),
        prefix="decoder.layers.{}.",
    )


def _default_width(fields: Fields, gated: bool) -> None:
    """Set the default MLP width: four times the hidden size; if gated, two thirds of that as a multiple of 64."""
    hidden = fields.data.get("hidden_size", fields.data.get("n_embd"))
    if isinstance(hidden, int) and not isinstance(hidden, bool) and "intermediate_size" not in fields:
        width = 4 * hidden * 2 // 3 // 64 * 64 if gated else 4 * hidden
        fields.data = {"ffn_hidden_size": width, **fields.data}


def _position_kind(fields: Fields) -> str:
    """The kind of positions: `position_embedding_type`, or the switches of older versions."""
    if fields.flag("use_rotary_position_embeddings", False):
        return "rope"
    kind: str = fields.text("position_embedding_type", "learned_absolute", choices=_POSITIONS)
    return kind


FAMILIES: dict[str, Reader] = {"megatron-gpt2": megatron}
"""Readers by `model_type`."""
