"""Dense decoders similar to Llama, with other norms, a plain MLP, or latent or differential attention."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    pre_norm,
    read_dims,
    size,
    unused,
    windows,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import QkNorm, SelfAttention
from graphsim.models.layers.differential_attention import DifferentialAttention
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.mla import LatentAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.normed_attention import NormedAttention

_BOTH = ("input_layernorm", "post_attention_layernorm")


def internlm3(fields: Fields, name: str) -> ModelConfig:
    """Llama with other names for its two bias switches."""
    spelled = {"attention_bias": fields.raw("qkv_bias"), "mlp_bias": fields.raw("bias")}
    fields.data = {**fields.data, **{key: value for key, value in spelled.items() if value is not None}}
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention_of(fields, dims), mlp)] * dims.layers)


def jais2(fields: Fields, name: str) -> ModelConfig:
    """LayerNorm, a plain MLP with squared ReLU, biases set by two switches."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=fields.flag("mlp_bias", True))
    block = pre_norm(attention_of(fields, dims), mlp, "layer")
    return assemble(name, dims, [block] * dims.layers, norm=NormLayer(name="model.norm", kind="layer"))


def hyperclovax(fields: Fields, name: str) -> ModelConfig:
    """Granite with optional norms after each sublayer."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    after = ("post_norm1", "post_norm2") if fields.flag("use_post_norm", True) else None
    block = wrapped(attention_of(fields, dims), mlp, before=_BOTH, after=after)
    return assemble(name, dims, [block] * dims.layers)


def nanochat(fields: Fields, name: str) -> ModelConfig:
    """Norms without weights, also on queries and keys and after the embedding; a plain MLP."""
    dims = read_dims(fields)
    bias = fields.flag("attention_bias", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        norm_vectors=0,
    )
    mlp = Mlp(intermediate=dims.intermediate, gated=False, names=MlpNames(up="mlp.fc1", down="mlp.fc2"))
    kind = "rms_no_weight"
    norm = NormLayer(name="model.norm", kind=kind)
    stem = Stem(vocab_size=dims.vocab, norm=norm)
    return assemble(name, dims, [pre_norm(attention, mlp, kind)] * dims.layers, norm=norm, stem=stem)


def vaultgemma(fields: Fields, name: str) -> ModelConfig:
    """Gemma 2 with norms only before each sublayer."""
    dims = read_dims(fields, tied=True)
    mlp = Mlp(intermediate=dims.intermediate)
    slides = windows(fields, dims.layers, lambda i: i % 2 == 0)
    before = ("input_layernorm", "pre_feedforward_layernorm")
    return assemble(name, dims, [wrapped(attention_of(fields, dims, w), mlp, before=before) for w in slides])


def bitnet(fields: Fields, name: str) -> ModelConfig:
    """A separate norm before each output projection (BitNet b1.58 2B4T, arXiv 2504.12285, section 3)."""
    dims = read_dims(fields)
    bias = fields.flag("attention_bias", False)
    attention = NormedAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias,
        out_bias=bias,
        norm="self_attn.attn_sub_norm",
    )
    mlp = Mlp(intermediate=dims.intermediate, norm="mlp.ffn_sub_norm")
    return assemble(name, dims, [pre_norm(attention, mlp)] * dims.layers)


def diffllama(fields: Fields, name: str) -> ModelConfig:
    """Llama with differential attention."""
    dims = read_dims(fields)
    if dims.kv_heads % 2:
        fields.problem("num_key_value_heads", "is not allowed; expected an even number, as values are taken in halves")
    bias = fields.flag("attention_bias", False)
    attention = DifferentialAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias,
        out_bias=bias,
    )
    return assemble(name, dims, [pre_norm(attention, Mlp(intermediate=dims.intermediate))] * dims.layers)


def latent(fields: Fields, name: str) -> ModelConfig:
    """MiniCPM3 and Youtu: multi-head latent attention with a dense MLP in every layer."""
    unused(fields, "num_key_value_heads", "head_dim", "qk_head_dim", "scale_emb", "scale_depth", "dim_model_base")
    fields.data = {key: value for key, value in fields.data.items() if key not in ("num_key_value_heads", "head_dim")}
    dims = read_dims(fields, tied=True, floor=True)
    attention = LatentAttention(
        heads=dims.heads,
        q_rank=size(fields, "q_lora_rank", default=0, least=0),
        kv_rank=size(fields, "kv_lora_rank", default=256),
        nope=size(fields, "qk_nope_head_dim", default=64),
        rope=size(fields, "qk_rope_head_dim", default=32),
        value_dim=size(fields, "v_head_dim", default=dims.head_dim),
        bias=fields.flag("attention_bias", False),
    )
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention, mlp)] * dims.layers)


FAMILIES: dict[str, Reader] = {
    "internlm3": internlm3,
    "jais2": jais2,
    "hyperclovax": hyperclovax,
    "nanochat": nanochat,
    "vaultgemma": vaultgemma,
    "bitnet": bitnet,
    "diffllama": diffllama,
    "minicpm3": latent,
    "youtu": latent,
}
"""Readers by `model_type`."""
