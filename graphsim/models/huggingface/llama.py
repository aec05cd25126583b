"""Llama-like families: RMSNorm before each sublayer, rotary positions, gated MLP; and small variations."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Dims,
    Reader,
    assemble,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    windows,
)
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.ends import Head
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def attention_of(
    fields: Fields,
    dims: Dims,
    window: int = 0,
    *,
    out_bias: bool | None = None,
    qk: QkNorm = QkNorm.NONE,
    rope: bool = True,
    sinks: bool = False,
) -> SelfAttention:
    """Attention whose projections have biases if `attention_bias` is set."""
    bias = fields.flag("attention_bias", False)
    return SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        window=window,
        qkv_bias=bias,
        out_bias=bias if out_bias is None else out_bias,
        rope=rope,
        qk_norm=qk,
        sinks=sinks,
        soft_cap=bool(fields.number("attn_logit_softcapping", 0.0)),
    )


def llama(fields: Fields, name: str) -> ModelConfig:
    """llama, mistral, granite, smollm3 and others with the same operations."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    slides = windows(fields, dims.layers, lambda i: fields.data.get("model_type") == "mistral")
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, window), mlp) for window in slides])


def smollm3(fields: Fields, name: str) -> ModelConfig:
    """Llama with tied embeddings, and without rotary positions in some layers."""
    dims = read_dims(fields, tied=True)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    every = size(fields, "no_rope_layer_interval", default=4)
    listed = fields.sequence("no_rope_layers", most=MOST_LAYERS)
    turns = listed if len(listed) == dims.layers else [(i + 1) % every for i in range(dims.layers)]
    uses = fields.flag("use_sliding_window", False)
    slides = windows(fields, dims.layers, lambda i: uses and not turns[i])
    kinds = [replace(attention_of(fields, dims, w), rope=bool(turn)) for w, turn in zip(slides, turns, strict=True)]
    return assemble(name, dims, [pre_norm(kind, mlp) for kind in kinds])


def qwen2(fields: Fields, name: str) -> ModelConfig:
    """Llama with biases on q, k and v."""
    dims = read_dims(fields)
    uses = fields.flag("use_sliding_window", False)
    first = size(fields, "max_window_layers", default=0, least=0)
    blocks = []
    for window in windows(fields, dims.layers, lambda i: uses and i >= first):
        attention = SelfAttention(
            heads=dims.heads,
            kv_heads=dims.kv_heads,
            head_dim=dims.head_dim,
            window=window if uses else 0,
            qkv_bias=True,
        )
        blocks.append(pre_norm(attention, Mlp(intermediate=dims.intermediate)))
    return assemble(name, dims, blocks)


def qwen3(fields: Fields, name: str) -> ModelConfig:
    """Llama with QK norm per head."""
    dims = read_dims(fields)
    uses = fields.flag("use_sliding_window", False)
    first = size(fields, "max_window_layers", default=0, least=0)
    mlp = Mlp(intermediate=dims.intermediate)
    slides = windows(fields, dims.layers, lambda i: uses and i >= first)
    return assemble(
        name, dims, [pre_norm(attention_of(fields, dims, w if uses else 0, qk=QkNorm.HEAD), mlp) for w in slides]
    )


def hunyuan(fields: Fields, name: str) -> ModelConfig:
    """Qwen3's attention with QK norm after the rotary embedding, under other names."""
    dims = read_dims(fields)
    names = AttentionNames(q_norm="self_attn.query_layernorm", k_norm="self_attn.key_layernorm")
    bias = fields.flag("attention_bias", False)
    attention = self_attention(dims, bias=bias, qk=QkNorm.HEAD, names=names)
    return assemble(name, dims, [pre_norm(attention, Mlp(intermediate=dims.intermediate))] * dims.layers)


def seed_oss(fields: Fields, name: str) -> ModelConfig:
    """Llama with separate switches for the biases of q, k, v and of the output."""
    dims = read_dims(fields)
    attention = attention_of(fields, dims, out_bias=fields.flag("attention_out_bias", False))
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention, mlp)] * dims.layers)


def ernie(fields: Fields, name: str) -> ModelConfig:
    """Llama with optional biases on all linear layers, and embeddings tied by default."""
    dims = read_dims(fields, tied=True)
    bias = fields.flag("use_bias", False)
    attention = self_attention(dims, bias=bias)
    return assemble(name, dims, [pre_norm(attention, Mlp(intermediate=dims.intermediate, bias=bias))] * dims.layers)


def helium(fields: Fields, name: str) -> ModelConfig:
    """Llama without a bias on the output projection."""
    dims = read_dims(fields)
    if dims.heads * dims.head_dim != dims.hidden:
        found = f"{dims.heads} attention heads of {dims.head_dim}"
        fields.problems.append(f"{found} do not make up hidden_size = {dims.hidden}, the output projection's width")
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, out_bias=False), mlp)] * dims.layers)


def gemma(fields: Fields, name: str) -> ModelConfig:
    """Llama with tied embeddings and heads wider than hidden / heads."""
    dims = read_dims(fields, tied=True)
    return assemble(
        name, dims, [pre_norm(attention_of(fields, dims), Mlp(intermediate=dims.intermediate))] * dims.layers
    )


def phi3(fields: Fields, name: str) -> ModelConfig:
    """Llama with fused qkv and gate/up weights."""
    unused(fields, "full_attn_mod", "interpolate_factor")
    dims = read_dims(fields)
    names = AttentionNames(fused="self_attn.qkv_proj")
    mlp = Mlp(intermediate=dims.intermediate, names=MlpNames(fused="mlp.gate_up_proj"))
    blocks = []
    for window in windows(fields, dims.layers, lambda i: True):
        attention = self_attention(dims, window=window, names=names)
        blocks.append(pre_norm(attention, mlp))
    return assemble(name, dims, blocks)


def glm(fields: Fields, name: str) -> ModelConfig:
    """Llama with a fused gate/up weight and biases on q, k and v."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, names=MlpNames(fused="mlp.gate_up_proj"))
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, out_bias=False), mlp)] * dims.layers)


def arcee(fields: Fields, name: str) -> ModelConfig:
    """Llama with a plain MLP."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention_of(fields, dims), mlp)] * dims.layers)


def apertus(fields: Fields, name: str) -> ModelConfig:
    """Plain MLP with xIELU, which has two weights per layer; QK norm per head; in 1.5 a head for some tokens only."""
    dims = read_dims(fields)
    learned = 2 if fields.text("hidden_act", "xielu") == "xielu" else 0
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=fields.flag("mlp_bias", False), learned=learned)
    names = ("attention_layernorm", "feedforward_layernorm")
    block = pre_norm(attention_of(fields, dims, qk=QkNorm.HEAD), mlp, names=names)
    rows = size(fields, "output_vocab_size", default=dims.vocab)
    head = Head(vocab_size=rows, tied=dims.tied, norm=NormLayer(name="model.norm"))
    return assemble(name, dims, [block] * dims.layers, head=head)


def olmo(fields: Fields, name: str) -> ModelConfig:
    """Llama with norms that have no weights."""
    dims = read_dims(fields)
    kind = "layer_no_weight"
    block = pre_norm(attention_of(fields, dims), Mlp(intermediate=dims.intermediate), kind)
    return assemble(name, dims, [block] * dims.layers, norm=NormLayer(name="model.norm", kind=kind))


FAMILIES: dict[str, Reader] = {
    "llama": llama,
    "mistral": llama,
    "granite": llama,
    "iquestcoder": llama,
    "smollm3": smollm3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "hunyuan_v1_dense": hunyuan,
    "seed_oss": seed_oss,
    "ernie4_5": ernie,
    "helium": helium,
    "gemma": gemma,
    "phi3": phi3,
    "phi4_multimodal": phi3,
    "glm": glm,
    "arcee": arcee,
    "apertus": apertus,
    "apertus1p5_text": apertus,
    "olmo": olmo,
}
"""Readers by `model_type`."""
