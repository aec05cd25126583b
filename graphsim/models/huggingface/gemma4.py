"""Gemma 4: wider heads in full-attention layers, values equal to keys, shared caches, per-layer inputs, experts."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Dims, Reader, assemble, layer_config, read_dims, size, unused, windows
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.per_layer_input import PerLayerInput, PerLayerStem

_BEFORE = ("input_layernorm", "pre_feedforward_layernorm")
_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")


def gemma4(fields: Fields, name: str) -> ModelConfig:
    """Gemma 4's text model."""
    dims = read_dims(fields, tied=True)
    unused(fields, "vocab_size_per_layer_input", "use_double_wide_mlp")
    if fields.raw("use_bidirectional_attention") not in (None, False, "vision"):
        fields.problem("use_bidirectional_attention", "is not simulated; expected false or vision")
    own = size(fields, "hidden_size_per_layer_input", default=0, least=0)
    if own and fields.data.get("model_type") == "gemma4_unified_text":
        fields.problem("hidden_size_per_layer_input", "is not allowed; expected 0, as the class has no such inputs")
    shared = size(fields, "num_kv_shared_layers", default=0, least=0)
    if shared >= dims.layers:
        fields.problem("num_kv_shared_layers", f"is not allowed; expected fewer than the {dims.layers} layers")
    slides = windows(fields, dims.layers, lambda i: (i + 1) % 6 != 0)
    slides[-1] = 0  # as in transformers, regardless of `layer_types` (`Gemma4TextConfig`)
    if fields.raw("sliding_window") == 0:
        fields.problem("sliding_window", "is not allowed; expected a whole number from 1")
    blocks: list[Layer] = []
    for i, window in enumerate(slides):
        reuses = i >= dims.layers - shared > 0
        wide = 2 if reuses and fields.flag("use_double_wide_mlp", False) else 1
        attention = _attention(fields, dims, i, window, reuses)
        blocks.append(_block(attention, Mlp(intermediate=dims.intermediate * wide), _experts(fields), own))
    stem: Stem | PerLayerStem = Stem(vocab_size=dims.vocab)
    if own:
        entries = size(fields, "vocab_size_per_layer_input", default=dims.vocab)
        stem = PerLayerStem(base=Stem(vocab_size=dims.vocab), entries=entries, layers=dims.layers, width=own)
    return replace(assemble(name, dims, blocks), stem=stem)


def _attention(fields: Fields, dims: Dims, i: int, window: int, reuses: bool) -> SelfAttention:
    """Attention of layer i; full attention may have wider and fewer key heads, set globally or per layer.

    Global values are ignored if there are per-layer ones; fewer key heads require values equal to keys
    (`Gemma4TextConfig`).
    """
    head_dim, kv_heads = dims.head_dim, dims.kv_heads
    equal, listed = fields.flag("attention_k_eq_v", False), fields.raw("per_layer_config")
    wider, fewer = (
        size(fields, "global_head_dim", default=512),
        size(fields, "num_global_key_value_heads", default=kv_heads),
    )
    if listed is not None:
        layer = layer_config(fields, i, "head_dim", "num_key_value_heads")
        head_dim = size(layer, "head_dim", default=head_dim)
        kv_heads = size(layer, "num_key_value_heads", default=kv_heads)
    elif not window:
        head_dim, kv_heads = wider, fewer if equal else kv_heads
    bias = fields.flag("attention_bias", False)
    return SelfAttention(
        heads=dims.heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        window=window,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        shares_kv=reuses,
        keys_are_values=not window and equal,
        names=AttentionNames(),
    )


def _experts(fields: Fields) -> Moe | None:
    if not fields.flag("enable_moe_block", False):
        return None
    return Moe(
        experts=size(fields, "num_experts"),
        chosen=size(fields, "top_k_experts", "num_experts_per_tok"),
        intermediate=size(fields, "moe_intermediate_size", "expert_intermediate_size"),
        adapt_router=True,
        correction=True,
        router_norm="router.norm",
        names=MoeNames(router="router.proj", gate_up="experts.gate_up_proj", down="experts.down_proj"),
    )


def _block(attention: Layer, mlp: Layer, experts: Moe | None, own: int) -> Block:
    def norm(name: str) -> NormLayer:
        return NormLayer(name=name)

    feed: tuple[Branch, ...] = (Branch(layer=mlp, norm=norm(_BEFORE[1])),)
    if experts is not None:
        feed = (
            Branch(layer=mlp, norm=norm(_BEFORE[1]), post_norm=norm("post_feedforward_layernorm_1")),
            Branch(
                layer=experts,
                norm=norm("pre_feedforward_layernorm_2"),
                post_norm=norm("post_feedforward_layernorm_2"),
            ),
        )
    parts = [
        Residual(
            name="attn_residual", norm=norm(_BEFORE[0]), post_norm=norm(_AFTER[0]), branches=(Branch(layer=attention),)
        ),
        Residual(name="mlp_residual", post_norm=norm(_AFTER[1]), branches=feed),
    ]
    if own:
        parts.append(Residual(name="per_layer_residual", branches=(Branch(layer=PerLayerInput(width=own)),)))
    return Block(parts=tuple(parts))


FAMILIES: dict[str, Reader] = {"gemma4_text": gemma4, "gemma4": gemma4, "gemma4_unified_text": gemma4}
"""Readers by `model_type`."""
