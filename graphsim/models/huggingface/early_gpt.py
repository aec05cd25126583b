"""Early GPT-like models: OpenAI GPT, CTRL, BioGPT, GPT-NeoX Japanese."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST, Reader, assemble, pre_norm, read_dims, self_attention
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.linear import BiasedLayer
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def openai_gpt(fields: Fields, name: str) -> ModelConfig:
    """GPT-1: GPT-2's weights with post-norm layers, and no norm after the last layer."""
    dims = read_dims(fields, tied=True, mlp_factor=4)
    names = AttentionNames(fused="attn.c_attn", o="attn.c_proj")
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=True,
        rope=False,
        names=names,
    )
    mlp = Mlp(intermediate=4 * dims.hidden, gated=False, bias=True, names=MlpNames(up="mlp.c_fc", down="mlp.c_proj"))
    block = Block(
        parts=(
            Residual(name="attn_residual", branches=(Branch(layer=attention),)),
            NormLayer(name="ln_1", kind="layer"),
            Residual(name="mlp_residual", branches=(Branch(layer=mlp),)),
            NormLayer(name="ln_2", kind="layer"),
        )
    )
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(
            vocab_size=dims.vocab,
            positions=dims.positions,
            module="transformer.tokens_embed",
            position_module="transformer.positions_embed",
        ),
        head=Head(vocab_size=dims.vocab, tied=dims.tied),
        prefix="transformer.h.{}.",
    )


def ctrl(fields: Fields, name: str) -> ModelConfig:
    """Sinusoidal positions; a bias on the output head."""
    fields.data = {"intermediate_size": fields.data.get("dff"), **fields.data}
    fields.raw("dff")
    dims = read_dims(fields, tied=True)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=True,
        rope=False,
        names=AttentionNames(
            **{part: f"multi_head_attention.W{part}" for part in "qkv"}, o="multi_head_attention.dense"
        ),
    )
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=True, names=MlpNames(up="ffn.0", down="ffn.2"))
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp, "layer", ("layernorm1", "layernorm2"))] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.w"),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            bias=True,
            norm=NormLayer(name="transformer.layernorm", kind="layer"),
        ),
        prefix="transformer.h.{}.",
    )


def biogpt(fields: Fields, name: str) -> ModelConfig:
    """OPT's layers, learned positions with two extra entries."""
    dims = read_dims(fields, tied=True)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=True,
        rope=False,
        names=AttentionNames(o="self_attn.out_proj"),
    )
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=True, names=MlpNames(up="fc1", down="fc2"))
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp, "layer", ("self_attn_layer_norm", "final_layer_norm"))] * dims.layers,
        stem=Stem(
            vocab_size=dims.vocab,
            positions=dims.positions + 2,
            module="biogpt.embed_tokens",
            position_module="biogpt.embed_positions",
        ),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            norm=NormLayer(name="biogpt.layer_norm", kind="layer"),
            module="output_projection",
        ),
        prefix="biogpt.layers.{}.",
    )


def gpt_neox_japanese(fields: Fields, name: str) -> ModelConfig:
    """GPT-NeoX with sequential sublayers and no biases, except on the attention output of the last layer."""
    factor = fields.number("intermediate_multiple_size", 4.0)
    hidden = fields.data.get("hidden_size")
    whole = isinstance(hidden, int) and 1.0 <= factor * hidden < MOST
    if isinstance(hidden, int) and not whole:
        fields.problem("intermediate_multiple_size", "is not allowed; expected how many times the hidden size is wide")
    fields.data = {**fields.data, "intermediate_size": int(hidden * factor) if whole and hidden else 1}
    dims = read_dims(fields, tied=True)
    names = AttentionNames(fused="attention.query_key_value", o="attention.dense")
    mlp = Mlp(
        intermediate=dims.intermediate,
        gated=False,
        names=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
    )
    plain = self_attention(dims, kv_heads=dims.heads, names=names)
    last = BiasedLayer(layer=plain, name="dense_bias")
    layers: list[Layer] = [pre_norm(plain if i + 1 < dims.layers else last, mlp, "layer") for i in range(dims.layers)]
    return assemble(
        name,
        dims,
        layers,
        stem=Stem(vocab_size=dims.vocab, module="gpt_neox_japanese.embed_in"),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            norm=NormLayer(name="gpt_neox_japanese.final_layer_norm", kind="layer"),
            module="embed_out",
        ),
        prefix="gpt_neox_japanese.layers.{}.",
    )


FAMILIES: dict[str, Reader] = {
    "openai-gpt": openai_gpt,
    "ctrl": ctrl,
    "biogpt": biogpt,
    "gpt_neox_japanese": gpt_neox_japanese,
}
"""Readers by `model_type`."""
