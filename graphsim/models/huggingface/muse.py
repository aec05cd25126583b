"""Muse-Glimmer's language model: gated attention, full attention without rotary positions, sandwich norms."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, assemble, read_dims, unused, windows, wrapped
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.mlp import Mlp


def muse_glimmer(fields: Fields, name: str) -> ModelConfig:
    """QK norm per head without weights; `layer_rope_theta` is 0 in layers without rotary positions."""
    dims = read_dims(fields)
    slides = windows(fields, dims.layers, lambda i: (dims.layers - 1 - i) % 4 != 0)
    bases = fields.sequence("layer_rope_theta", most=MOST_LAYERS)
    if bases and len(bases) != dims.layers:
        fields.problem("layer_rope_theta", f"is not allowed; expected one number for each of {dims.layers} layers")
    turns = [bool(base) for base in bases] or [(dims.layers - 1 - i) % 4 != 0 for i in range(dims.layers)]
    unused(fields, "qk_scale_factor", "output_multiplier", "post_norm_eps")
    bias = fields.flag("attention_bias", False)
    blocks = [
        wrapped(
            SelfAttention(
                heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, window=window, rope=turn,
                qkv_bias=bias, out_bias=bias, qk_norm=QkNorm.HEAD, norm_vectors=0, gated=True,
                names=AttentionNames(gate="self_attn.gate_proj"),
            ),
            Mlp(intermediate=dims.intermediate),
            before=("input_layernorm", "pre_feedforward_layernorm"),
            after=("post_attention_layernorm", "post_feedforward_layernorm"),
        )
        for window, turn in zip(slides, turns, strict=False)
    ]  # fmt: skip
    return assemble(name, dims, blocks)


FAMILIES: dict[str, Reader] = {"muse_glimmer_text": muse_glimmer}
"""Readers by `model_type`."""
