"""ChatGLM: the first model, and ChatGLM2, ChatGLM3 and GLM-4-9B, which share another class.

Structure and names as in `modeling_chatglm.py` of zai-org/chatglm-6b and zai-org/glm-4-9b; vLLM 0.33,
`model_executor/models/chatglm.py`.
"""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    padded,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
)
from graphsim.models.huggingface.remote_code import longest, refuse_parts
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def chatglm(fields: Fields, name: str) -> ModelConfig:
    """The model of the class to which the config's keys belong."""
    refuse_parts(fields, "vision_config", "pre_seq_len")
    unused(fields, "prefix_projection")
    return _first(fields, name) if "inner_hidden_size" in fields else _later(fields, name)


def _later(fields: Fields, name: str) -> ModelConfig:
    """ChatGLM2 and later: grouped key heads, fused gate and up, biases on q, k and v."""
    padded(fields)
    unused(fields, "apply_residual_connection_post_layernorm")
    if fields.flag("tie_word_embeddings", False):
        fields.problem("tie_word_embeddings", "is not allowed; expected false: this class always has an output layer")
    multi_query = fields.flag("multi_query_attention", False)
    groups = size(fields, "multi_query_group_num", default=1)
    heads = size(fields, "num_attention_heads", default=32)
    dims = longest(fields, read_dims(fields, kv_heads=groups if multi_query else heads), "seq_length")
    bias = fields.flag("add_bias_linear", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=fields.flag("add_qkv_bias", False) or bias,
        out_bias=bias,
        names=AttentionNames(fused="self_attention.query_key_value", o="self_attention.dense"),
    )
    names = MlpNames(fused="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h")
    mlp = Mlp(intermediate=dims.intermediate, bias=bias, names=names)
    kind = "rms" if fields.flag("rmsnorm", True) else "layer"
    final = NormLayer(name="transformer.encoder.final_layernorm", kind=kind)
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp, kind)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.embedding.word_embeddings"),
        head=Head(
            vocab_size=dims.vocab,
            norm=final if fields.flag("post_layer_norm", True) else None,
            module="transformer.output_layer",
        ),
        prefix="transformer.encoder.layers.{}.",
    )


def _first(fields: Fields, name: str) -> ModelConfig:
    """ChatGLM-6B: LayerNorm, biases everywhere, a plain MLP, 2-D rotary positions."""
    fields.data = {"intermediate_size": fields.data.get("inner_hidden_size"), **fields.data}
    unused(fields, "inner_hidden_size", "position_encoding_2d")
    dims = longest(fields, read_dims(fields, tied=True), "max_sequence_length")
    bias = fields.flag("use_bias", True)
    names = AttentionNames(fused="attention.query_key_value", o="attention.dense")
    attention = self_attention(dims, kv_heads=dims.heads, bias=bias, names=names)
    mlp = Mlp(
        intermediate=dims.intermediate,
        gated=False,
        bias=bias,
        names=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
    )
    norm = NormLayer(name="transformer.final_layernorm", kind="layer")
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp, "layer")] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.word_embeddings"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=norm),
        prefix="transformer.layers.{}.",
    )


FAMILIES: dict[str, Reader] = {"chatglm": chatglm}
"""Readers by `model_type`."""
