"""Families with attention and MLP in parallel, and related sequential ones."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    parallel,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    windows,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def falcon(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv with one, some or all key heads; one norm, or one for each branch in the new architecture."""
    new = fields.flag("new_decoder_architecture", False)
    multi_query = fields.flag("multi_query", True)
    unused(fields, "num_kv_heads")
    heads = size(fields, "num_attention_heads", "n_head")
    groups = size(fields, "num_kv_heads", default=heads) if new else 1
    dims = read_dims(fields, tied=True, kv_heads=groups if new or multi_query else heads, mlp_factor=4)
    bias = fields.flag("bias", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias,
        out_bias=bias,
        rope=not fields.flag("alibi", False),
        names=AttentionNames(fused="self_attention.query_key_value", o="self_attention.dense"),
    )
    mlp = Mlp(
        intermediate=dims.intermediate,
        gated=False,
        bias=bias,
        names=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
    )
    norms = size(fields, "num_ln_in_parallel_attn", default=2 if new else 1)
    side_by_side = fields.flag("parallel_attn", True)
    if norms == 2 and not new:
        fields.problem("num_ln_in_parallel_attn", "is not allowed; expected 1 or null without new_decoder_architecture")
    if new and not side_by_side:
        fields.problem("parallel_attn", "is not allowed; expected true with new_decoder_architecture")
    if not side_by_side:
        block = pre_norm(attention, mlp, "layer")
    elif new and norms == 2:
        block = parallel(attention, mlp, norms=(_layer_norm("ln_attn"), _layer_norm("ln_mlp")))
    else:
        block = parallel(attention, mlp, norm=_layer_norm("input_layernorm"))
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.word_embeddings"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=_layer_norm("transformer.ln_f")),
        prefix="transformer.h.{}.",
    )


def gpt_neox(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv; two norms, in parallel by default."""
    dims = read_dims(fields)
    bias = fields.flag("attention_bias", True)
    attention = self_attention(
        dims,
        kv_heads=dims.heads,
        bias=bias,
        names=AttentionNames(fused="attention.query_key_value", o="attention.dense"),
    )
    mlp = Mlp(
        intermediate=dims.intermediate,
        gated=False,
        bias=True,
        names=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
    )
    names = ("input_layernorm", "post_attention_layernorm")
    side_by_side = fields.flag("use_parallel_residual", True)
    block = (
        parallel(attention, mlp, norms=(_layer_norm(names[0]), _layer_norm(names[1])))
        if side_by_side
        else pre_norm(attention, mlp, "layer", names)
    )
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="gpt_neox.embed_in"),
        head=Head(
            vocab_size=dims.vocab, tied=dims.tied, norm=_layer_norm("gpt_neox.final_layer_norm"), module="lm_head"
        ),
        prefix="gpt_neox.layers.{}.",
    )


def gptj(fields: Fields, name: str) -> ModelConfig:
    """GPT-J, and CodeGen with its fused qkv: one norm, a bias on the output head."""
    dims = read_dims(fields, mlp_factor=4)
    fused = fields.data.get("model_type") == "codegen"
    names = AttentionNames(q="attn.q_proj", k="attn.k_proj", v="attn.v_proj", o="attn.out_proj")
    attention = self_attention(
        dims, kv_heads=dims.heads, names=AttentionNames(fused="attn.qkv_proj", o="attn.out_proj") if fused else names
    )
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=True, names=MlpNames(up="mlp.fc_in", down="mlp.fc_out"))
    return assemble(
        name,
        dims,
        [parallel(attention, mlp, norm=_layer_norm("ln_1"))] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.wte"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, bias=True, norm=_layer_norm("transformer.ln_f")),
        prefix="transformer.h.{}.",
    )


def phi(fields: Fields, name: str) -> ModelConfig:
    """Biases everywhere, one norm for both branches, optional QK norm per head."""
    dims = read_dims(fields)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=True,
        qk_norm=QkNorm.HEAD if fields.flag("qk_layernorm", False) else QkNorm.NONE,
        norm_vectors=2,
        names=AttentionNames(o="self_attn.dense", q_norm="self_attn.q_layernorm", k_norm="self_attn.k_layernorm"),
    )
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=True, names=MlpNames(up="mlp.fc1", down="mlp.fc2"))
    head = Head(vocab_size=dims.vocab, tied=dims.tied, bias=True, norm=_layer_norm("model.final_layernorm"))
    block = parallel(attention, mlp, norm=_layer_norm("input_layernorm"))
    return assemble(name, dims, [block] * dims.layers, head=head)


def persimmon(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, QK norm per head, sequential sublayers with a norm each, biases everywhere."""
    dims = read_dims(fields)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=True,
        qk_norm=QkNorm.HEAD if fields.flag("qk_layernorm", True) else QkNorm.NONE,
        norm_vectors=2,
        names=AttentionNames(
            fused="self_attn.query_key_value",
            o="self_attn.dense",
            q_norm="self_attn.q_layernorm",
            k_norm="self_attn.k_layernorm",
        ),
    )
    mlp = Mlp(
        intermediate=dims.intermediate,
        gated=False,
        bias=True,
        names=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
    )
    norm = _layer_norm("model.final_layernorm")
    return assemble(name, dims, [pre_norm(attention, mlp, "layer")] * dims.layers, norm=norm)


def cohere(fields: Fields, name: str) -> ModelConfig:
    """One norm without bias for both branches, embeddings tied.

    Cohere 2 has sliding windows in three of four layers, and only these have rotary positions.
    """
    dims = read_dims(fields, tied=True)
    second = fields.data.get("model_type") == "cohere2"
    own_heads = QkNorm.OWN_HEAD if fields.flag("use_qk_norm", False) else QkNorm.NONE
    every = size(fields, "sliding_window_pattern", default=4)
    norm = NormLayer(name="input_layernorm", kind="layer_no_bias")
    mlp = Mlp(intermediate=dims.intermediate)
    blocks: list[Layer] = [
        parallel(attention_of(fields, dims, window, qk=own_heads, rope=bool(window) or not second), mlp, norm=norm)
        for window in windows(fields, dims.layers, lambda i: second and (i + 1) % every != 0)
    ]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.norm", kind="layer_no_bias"))


def stablelm(fields: Fields, name: str) -> ModelConfig:
    """LayerNorm; optional: biases on q, k and v, norms with separate weights per head, parallel sublayers."""
    dims = read_dims(fields)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=fields.flag("use_qkv_bias", False),
        qk_norm=QkNorm.OWN_HEAD if fields.flag("qk_layernorm", False) else QkNorm.NONE,
        names=AttentionNames(q_norm="self_attn.q_layernorm", k_norm="self_attn.k_layernorm"),
    )
    mlp = Mlp(intermediate=dims.intermediate)
    side_by_side = fields.flag("use_parallel_residual", False)
    block = (
        parallel(attention, mlp, norm=_layer_norm("input_layernorm"))
        if side_by_side
        else pre_norm(attention, mlp, "layer")
    )
    return assemble(name, dims, [block] * dims.layers, norm=_layer_norm("model.norm"))


def _layer_norm(name: str) -> NormLayer:
    return NormLayer(name=name, kind="layer")


FAMILIES: dict[str, Reader] = {
    "falcon": falcon,
    "gpt_neox": gpt_neox,
    "gptj": gptj,
    "codegen": gptj,
    "phi": phi,
    "persimmon": persimmon,
    "cohere": cohere,
    "cohere2": cohere,
    "stablelm": stablelm,
}
"""Readers by `model_type`."""
