"""Decoders whose class is in their own repository: Qwen (1), InternLM 1 and 2, Baichuan, MiniCPM, EXAONE 3.

All are similar to Llama, with other module names and biases. Structure and names as in the `modeling_*.py`
of each repository, which vLLM 0.33 follows (`model_executor/models/` qwen.py, internlm2.py, baichuan.py, minicpm.py,
exaone.py).
"""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def _transformer(name: str, dims: Dims, block: Layer) -> ModelConfig:
    """A model with GPT-2's names outside the layers, and a final RMSNorm."""
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.wte"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.ln_f")),
        prefix="transformer.h.{}.",
    )


def longest(fields: Fields, dims: Dims, *names: str) -> Dims:
    """The dimensions with the maximum context from an alternative key, if the usual ones are missing.

    names: alternative keys
    """
    others = size(fields, *names, default=0, least=0)
    return dims if dims.positions else replace(dims, positions=others)


def refuse_parts(fields: Fields, *keys: str) -> None:
    """Note a problem for each given key of a part that only the multimodal class has."""
    for key in keys:
        if fields.raw(key):
            fields.problem(key, "is not simulated with this model_type; expected a config of the language model alone")


def qwen(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv with a bias, an MLP of half the given width, other biases unless `no_bias`."""
    refuse_parts(fields, "visual", "audio")
    dims = longest(fields, read_dims(fields), "seq_length")
    if fields.data.get("intermediate_size") and dims.intermediate % 2:
        fields.problem("intermediate_size", "is not allowed; expected an even number, of which each weight has half")
    bias = not fields.flag("no_bias", True)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.head_dim,
        qkv_bias=True,
        out_bias=bias,
        names=AttentionNames(fused="attn.c_attn", o="attn.c_proj"),
    )
    names = MlpNames(gate="mlp.w2", up="mlp.w1", down="mlp.c_proj")
    mlp = Mlp(intermediate=max(dims.intermediate // 2, 1), bias=bias, names=names)
    return _transformer(name, dims, pre_norm(attention, mlp, names=("ln_1", "ln_2")))


def exaone(fields: Fields, name: str) -> ModelConfig:
    """Llama; with the names of its own class if `architectures` states that, as in checkpoints before 2026."""
    dims = read_dims(fields)
    if "ExaoneForCausalLM" not in fields.sequence("architectures"):
        mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
        return assemble(name, dims, [pre_norm(attention_of(fields, dims), mlp)] * dims.layers)
    attention = self_attention(
        dims,
        bias=fields.flag("attention_bias", False),
        names=AttentionNames(
            **{part: f"attn.attention.{part}_proj" for part in "qkv"},
            o="attn.attention.out_proj",
        ),
    )
    names = MlpNames(gate="mlp.c_fc_0", up="mlp.c_fc_1", down="mlp.c_proj")
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False), names=names)
    return _transformer(name, dims, pre_norm(attention, mlp, names=("ln_1", "ln_2")))


def internlm(fields: Fields, name: str) -> ModelConfig:
    """InternLM 1: Llama with biases on all four projections of attention."""
    dims = read_dims(fields)
    attention = self_attention(dims, bias=fields.flag("bias", True))
    return assemble(name, dims, [pre_norm(attention, Mlp(intermediate=dims.intermediate))] * dims.layers)


def internlm2(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, MLP modules w1 to w3, optional biases in attention."""
    dims = read_dims(fields)
    attention = self_attention(
        dims,
        bias=fields.flag("bias", True),
        names=AttentionNames(fused="attention.wqkv", o="attention.wo"),
    )
    names = MlpNames(gate="feed_forward.w1", up="feed_forward.w3", down="feed_forward.w2")
    block = pre_norm(attention, Mlp(intermediate=dims.intermediate, names=names), names=("attention_norm", "ffn_norm"))
    norm = NormLayer(name="model.norm")
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="model.tok_embeddings"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=norm, module="output"),
    )


def baichuan(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv; positions are rotary in the 7B models, and a linear bias (ALiBi) in the 13B.

    The configs do not state which; vLLM 0.33, `model_executor/models/baichuan.py`, uses the class and the hidden size.
    """
    dims = longest(fields, read_dims(fields), "model_max_length")
    first = "BaiChuanForCausalLM" in fields.sequence("architectures")
    attention = replace(
        self_attention(dims, kv_heads=dims.heads, names=AttentionNames(fused="self_attn.W_pack")),
        rope=first or dims.hidden == _BAICHUAN_7B,
    )
    return assemble(name, dims, [pre_norm(attention, Mlp(intermediate=dims.intermediate))] * dims.layers)


_BAICHUAN_7B = 4096
"""Hidden size of Baichuan 1 and 2 with 7B parameters."""


def minicpm(fields: Fields, name: str) -> ModelConfig:
    """MiniCPM 1, 2 and 4: Llama with tied embeddings; its scaling factors need neither weights nor kernels."""
    dims = read_dims(fields, tied=True)
    if size(fields, "num_experts", default=0, least=0):
        fields.problem("num_experts", "is not simulated with model_type = 'minicpm'; expected 0 or no such key")
    if fields.raw("sparse_config"):
        fields.problem("sparse_config", "is not simulated; expected no such key, which means dense attention")
    unused(fields, "mlp_bias")
    mlp = Mlp(intermediate=dims.intermediate)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims), mlp)] * dims.layers)


FAMILIES: dict[str, Reader] = {
    "qwen": qwen,
    "exaone": exaone,
    "internlm": internlm,
    "internlm2": internlm2,
    "baichuan": baichuan,
    "minicpm": minicpm,
}
"""Readers by `model_type`."""
