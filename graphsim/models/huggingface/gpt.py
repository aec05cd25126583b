"""GPT-2-like families: LayerNorm, plain MLP, biases; learned, sinusoidal or linear-bias positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Dims,
    Reader,
    assemble,
    pre_norm,
    read_dims,
    size,
    unused,
    windows,
)
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer

_C_NAMES = MlpNames(up="mlp.c_fc", down="mlp.c_proj")
_NORMS = ("ln_1", "ln_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """Module names and biases of a GPT family."""

    names: AttentionNames
    mlp: MlpNames
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    norm: str = "layer"
    norms: tuple[str, str] = _NORMS
    rope: bool = False

    def block(self, dims: Dims, window: int = 0) -> Layer:
        """One layer in this style."""
        attention = SelfAttention(
            heads=dims.heads,
            kv_heads=dims.kv_heads,
            head_dim=dims.head_dim,
            window=window,
            qkv_bias=self.qkv_bias,
            out_bias=self.out_bias,
            rope=self.rope,
            names=self.names,
        )
        mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=self.mlp_bias, names=self.mlp)
        return pre_norm(attention, mlp, self.norm, self.norms)


def refuse_cross_attention(fields: Fields) -> None:
    """Note a problem if the decoder is to attend to an encoder."""
    if fields.flag("add_cross_attention", False):
        fields.problem("add_cross_attention", "is not simulated with this model_type; expected false")


def gpt2(fields: Fields, name: str) -> ModelConfig:
    """GPT-2, and GPT-BigCode, which has a single key head."""
    refuse_cross_attention(fields)
    one_head = fields.data.get("model_type") == "gpt_bigcode" and fields.flag("multi_query", True)
    unused(fields, "num_key_value_heads")
    dims = read_dims(fields, tied=True, kv_heads=1, mlp_factor=4)
    dims = dims if one_head else replace(dims, kv_heads=dims.heads)
    style = _Style(names=AttentionNames(fused="attn.c_attn", o="attn.c_proj"), mlp=_C_NAMES)
    return _transformer(name, dims, [style.block(dims)] * dims.layers, positions=dims.positions)


def gpt_neo(fields: Fields, name: str) -> ModelConfig:
    """Separate q, k and v without bias; local attention in every other layer."""
    dims = read_dims(fields, tied=True, mlp_factor=4)
    prefix = "attn.attention"
    style = _Style(
        names=AttentionNames(q=f"{prefix}.q_proj", k=f"{prefix}.k_proj", v=f"{prefix}.v_proj", o=f"{prefix}.out_proj"),
        mlp=_C_NAMES,
        qkv_bias=False,
    )
    local = size(fields, "window_size", default=256)
    kinds = _attention_kinds(fields, dims.layers)
    unused(fields, "attention_layers")
    blocks = [style.block(dims, local if kind == "local" else 0) for kind in kinds]
    return _transformer(name, dims, blocks, positions=dims.positions)


def _attention_kinds(fields: Fields, layers: int) -> list[str]:
    """Each layer's kind: from `attention_layers`, else `attention_types`, else alternating global and local."""
    listed = [str(kind) for kind in fields.sequence("attention_layers", most=MOST_LAYERS)]
    unused(fields, "attention_types")
    key = "attention_layers" if listed else "attention_types"
    listed = listed or _repeated(fields, layers) or ["global", "local"] * layers
    given = key in fields
    if given and len(listed) != layers or set(listed) - {"global", "local"}:
        fields.problem(key, f"is not allowed; expected 'global' or 'local' for each of {layers} layers")
    return (listed + ["global"] * layers)[:layers]


def _repeated(fields: Fields, layers: int) -> list[str]:
    """The kinds of layers from `attention_types`, a list of [[kinds], times]."""
    listed: list[str] = []
    for entry in fields.sequence("attention_types"):
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list) and isinstance(entry[1], int)
        ):
            fields.problem("attention_types", "is not allowed; expected entries such as [['global', 'local'], 12]")
            return []
        listed += [str(kind) for kind in entry[0]] * min(max(entry[1], 0), layers + 1)
    return listed


def bloom(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, a norm after the embedding, no position weights (ALiBi, arXiv 2108.12409)."""
    dims = read_dims(fields, tied=True, mlp_factor=4)
    style = _Style(
        names=AttentionNames(fused="self_attention.query_key_value", o="self_attention.dense"),
        mlp=MlpNames(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"),
    )
    norm = NormLayer(name="transformer.word_embeddings_layernorm", kind="layer")
    return assemble(
        name,
        dims,
        [style.block(dims)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, norm=norm, module="transformer.word_embeddings"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.ln_f", kind="layer")),
        prefix="transformer.h.{}.",
    )


def mpt(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, no biases at all, no position weights (ALiBi)."""
    factor = size(fields, "expansion_ratio", default=4)
    unused(fields, "no_bias", "embedding_fraction", "norm_type", "learned_pos_emb")
    attn = fields.mapping("attn_config", lenient=True)
    attn.text("attn_type", "multihead_attention", ["multihead_attention"])
    for switch in ("qk_ln", "prefix_lm"):
        if attn.flag(switch, False):
            attn.problem(switch, "is not allowed; expected false, as the class has no such attention")
    unused(attn, "alibi", "attn_impl", "attn_uses_sequence_id", "attn_pdrop")
    if factor != 4:
        fields.problem("expansion_ratio", "is not allowed; expected 4, the width that the class always uses")
    dims = read_dims(fields, tied=True, mlp_factor=factor)
    style = _Style(
        names=AttentionNames(fused="attn.Wqkv", o="attn.out_proj"),
        mlp=MlpNames(up="ffn.up_proj", down="ffn.down_proj"),
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        norm="layer_no_bias",
        norms=("norm_1", "norm_2"),
    )
    return assemble(
        name,
        dims,
        [style.block(dims)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.wte"),
        head=Head(
            vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.norm_f", kind="layer_no_bias")
        ),
        prefix="transformer.blocks.{}.",
    )


def opt(fields: Fields, name: str) -> ModelConfig:
    """Learned positions with two extra entries; the 350M model projects its embedding and has no final norm."""
    dims = read_dims(fields, tied=True)
    bias = fields.flag("enable_bias", True)
    affine = "layer" if fields.flag("layer_norm_elementwise_affine", True) else "layer_no_weight"
    width = size(fields, "word_embed_proj_dim", default=dims.hidden)
    projected = width if width != dims.hidden else 0
    final = fields.flag("do_layer_norm_before", True) and not fields.flag("_remove_final_layer_norm", False)
    style = _Style(
        names=AttentionNames(o="self_attn.out_proj"),
        mlp=MlpNames(up="fc1", down="fc2"),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        norm=affine,
        norms=("self_attn_layer_norm", "final_layer_norm"),
    )
    root = "model.decoder"
    stem = Stem(
        vocab_size=dims.vocab,
        positions=dims.positions + 2,
        width=projected,
        projection=f"{root}.project_in" if projected else "",
        module=f"{root}.embed_tokens",
        position_module=f"{root}.embed_positions",
    )
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        width=projected,
        projection=f"{root}.project_out" if projected else "",
        norm=NormLayer(name=f"{root}.final_layer_norm", kind=affine) if final else None,
    )
    blocks = [style.block(dims)] * dims.layers
    return assemble(name, dims, blocks, stem=stem, head=head, prefix=f"{root}.layers.{{}}.")


def xglm(fields: Fields, name: str) -> ModelConfig:
    """OPT with sinusoidal positions."""
    refuse_cross_attention(fields)
    dims = read_dims(fields, tied=True)
    style = _Style(
        names=AttentionNames(o="self_attn.out_proj"),
        mlp=MlpNames(up="fc1", down="fc2"),
        norms=("self_attn_layer_norm", "final_layer_norm"),
    )
    norm = NormLayer(name="model.layer_norm", kind="layer")
    return assemble(name, dims, [style.block(dims)] * dims.layers, norm=norm)


def starcoder2(fields: Fields, name: str) -> ModelConfig:
    """Rotary positions, optional biases, a sliding window."""
    dims = read_dims(fields, tied=True)
    fields.text("mlp_type", "default", ["default"])
    fields.text("norm_type", "layer_norm", ["layer_norm"])
    bias = fields.flag("use_bias", True)
    style = _Style(
        names=AttentionNames(),
        mlp=_C_NAMES,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        norms=("input_layernorm", "post_attention_layernorm"),
        rope=True,
    )
    blocks = [style.block(dims, window) for window in windows(fields, dims.layers, lambda i: True)]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.norm", kind="layer"))


def nemotron(fields: Fields, name: str) -> ModelConfig:
    """Rotary positions, LayerNorm1P, plain MLP with squared ReLU."""
    dims = read_dims(fields)
    bias = fields.flag("attention_bias", False)
    style = _Style(
        names=AttentionNames(),
        mlp=MlpNames(),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        norms=("input_layernorm", "post_attention_layernorm"),
        rope=True,
    )
    return assemble(name, dims, [style.block(dims)] * dims.layers, norm=NormLayer(name="model.norm", kind="layer"))


def _transformer(name: str, dims: Dims, blocks: list[Layer], positions: int) -> ModelConfig:
    return assemble(
        name,
        dims,
        blocks,
        stem=Stem(
            vocab_size=dims.vocab, positions=positions, module="transformer.wte", position_module="transformer.wpe"
        ),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.ln_f", kind="layer")),
        prefix="transformer.h.{}.",
    )


FAMILIES: dict[str, Reader] = {
    "gpt2": gpt2,
    "gpt-sw3": gpt2,
    "gpt_bigcode": gpt2,
    "gpt_neo": gpt_neo,
    "bloom": bloom,
    "mpt": mpt,
    "opt": opt,
    "xglm": xglm,
    "starcoder2": starcoder2,
    "nemotron": nemotron,
}
"""Readers by `model_type`."""
