"""Families that combine softmax attention with linear attention, recurrences or short convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    SEES_ALL,
    SLIDES,
    Dims,
    Reader,
    assemble,
    kinds,
    per_layer,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of, mixtral_experts, shared_mlp, sparse_layers
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.linear_attention import GatedDeltaNet, GatedRecurrence, LightningAttention, ShortConvolution
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer


def _layer_types(fields: Fields, layers: int, other: str, fallback: Callable[[int], bool]) -> list[bool]:
    """Which layers have softmax attention: by `layer_types`, else by the family's rule.

    other: name of the other kind of layer
    fallback: the family's rule: whether layer i has softmax attention
    """
    kinds = per_layer(fields, "layer_types", layers, (SEES_ALL, other), lambda i: SEES_ALL if fallback(i) else other)
    return [kind == SEES_ALL for kind in kinds]


_LINEAR = "linear_attention"


def qwen3_next(fields: Fields, name: str) -> ModelConfig:
    """Qwen3-Next and Qwen3.5: the gated delta rule in three of four layers, gated attention in the fourth."""
    kind = str(fields.data.get("model_type"))
    dims = read_dims(fields)
    if not fields.flag("attn_output_gate", True):
        fields.problem("attn_output_gate", "is not allowed; expected true, as the class always gates attention")
    delta = _delta(fields, separate=kind != "qwen3_next")
    bias = fields.flag("attention_bias", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        gated=True,
    )
    feeds = _qwen_feeds(fields, dims, kind)
    every = size(fields, "full_attention_interval", default=4)
    attends = _layer_types(fields, dims.layers, _LINEAR, lambda i: (i + 1) % every == 0)
    blocks: list[Layer] = [
        pre_norm(attention if has else delta, feed) for has, feed in zip(attends, feeds, strict=False)
    ]
    return assemble(name, dims, blocks)


def _delta(fields: Fields, separate: bool, keys: int = 16, values: int = 32) -> GatedDeltaNet:
    """keys, values: the family's default number of key and value heads"""
    return GatedDeltaNet(
        key_heads=size(fields, "linear_num_key_heads", default=keys),
        value_heads=size(fields, "linear_num_value_heads", default=values),
        key_dim=size(fields, "linear_key_head_dim", default=128),
        value_dim=size(fields, "linear_value_head_dim", default=128),
        taps=size(fields, "linear_conv_kernel_dim", default=4),
        separate=separate,
    )


def _qwen_feeds(fields: Fields, dims: Dims, kind: str) -> list[Layer]:
    mapped = kind == "qwen3_next"
    if "num_experts" not in fields:
        return [Mlp(intermediate=dims.intermediate)] * dims.layers
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(size(fields, "shared_expert_intermediate_size"), "mlp.shared_expert", linear=not mapped),
        shared_gate=True,
        adapt_experts=mapped,
        adapt_router=mapped,
    )
    dense = Mlp(intermediate=dims.intermediate, linear=not mapped)
    return [moe if has else dense for has in sparse_layers(fields, dims.layers)]


def qwen3_5_moe(fields: Fields, name: str) -> ModelConfig:
    """Qwen3.5 with experts, whose config has no width of a dense MLP."""
    fields.data = {"intermediate_size": fields.data.get("moe_intermediate_size"), **fields.data}
    return qwen3_next(fields, name)


def lara_mini(fields: Fields, name: str) -> ModelConfig:
    """Qwen3.5's delta rule; attention is rotary in sliding layers only (transformers, `LaraMiniConfig`)."""
    fields.data = {**fields.data, "intermediate_size": fields.data.get("moe_intermediate_size")}
    dims = read_dims(fields, tied=True)
    full = attention_of(fields, dims, qk=QkNorm.HEAD, rope=False)
    mixers: dict[str, Layer] = {
        _LINEAR: _delta(fields, separate=True, keys=8, values=16),
        SLIDES: replace(full, window=size(fields, "sliding_window", default=512), rope=True),
        SEES_ALL: full,
    }
    experts, chosen = experts_of(fields)
    width = size(fields, "shared_expert_intermediate_size")
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(width, "mlp.shared_expert", linear=True),
    )
    pattern = (_LINEAR, SLIDES, _LINEAR, SEES_ALL, SLIDES)
    kinds = per_layer(fields, "layer_types", dims.layers, tuple(mixers), lambda i: pattern[i % 5])
    return assemble(name, dims, [pre_norm(mixers[kind], moe) for kind in kinds])


_MINIMAX_FACTORS = tuple(
    f"layernorm_{part}_{name}" for part in ("linear_attention", "full_attention", "mlp") for name in ("alpha", "beta")
)
"""Factors on the residual branches in MiniMax-Text-01's own code."""


def minimax(fields: Fields, name: str) -> ModelConfig:
    """Lightning attention in most layers, experts in all."""
    dims = read_dims(fields)
    unused(fields, "block_size")
    unused(fields, "shared_moe_mode", "postnorm", "rotary_dim", *_MINIMAX_FACTORS)
    wide = fields.raw("shared_intermediate_size", 0)
    if any(wide if isinstance(wide, list) else [wide]):
        fields.problem("shared_intermediate_size", "is not supported; expected 0")
    moe = replace(mixtral_experts(fields, dims), separate=fields.data.get("model_type") != "minimax")
    lightning = LightningAttention(heads=dims.heads, head_dim=dims.head_dim)
    attention = attention_of(fields, dims, size(fields, "sliding_window", default=0, least=0))
    attends = _minimax_types(fields, dims.layers)
    return assemble(name, dims, [pre_norm(attention if has else lightning, moe) for has in attends])


def _minimax_types(fields: Fields, layers: int) -> list[bool]:
    """Which layers have softmax attention: by a list (1 in MiniMax's own configs), else every other one."""
    own = fields.sequence("attn_type_list", most=MOST_LAYERS)
    if own and "layer_types" not in fields:
        if len(own) != layers or set(map(str, own)) - {"0", "1"}:
            fields.problem("attn_type_list", f"is not allowed; expected 0 or 1 for each of {layers} layers")
        return [(list(own[i : i + 1]) or [0])[0] == 1 for i in range(layers)]
    return _layer_types(fields, layers, _LINEAR, lambda i: i % 2 == 0)


def lfm2(fields: Fields, name: str) -> ModelConfig:
    """Short convolutions with attention in some layers."""
    unused(fields, "block_dim", "block_norm_eps", "block_use_swiglu", "block_use_xavier_init", "block_mlp_init_scale")
    unused(
        fields, "block_out_init_scale", "conv_dim", "conv_dim_out", "conv_use_xavier_init", "num_heads", "use_pos_enc"
    )
    _older_spellings(fields, block_ff_dim="intermediate_size", tie_embedding="tie_word_embeddings")
    dims = read_dims(fields, tied=True)
    mlp = Mlp(intermediate=_lfm2_width(fields, dims.intermediate), names=_LFM2_MLP)
    return _lfm2(fields, name, dims, [mlp] * dims.layers)


def lfm2_moe(fields: Fields, name: str) -> ModelConfig:
    """LFM2 with experts in all layers except the first few."""
    _older_spellings(fields, tie_embedding="tie_word_embeddings")
    unused(fields, "use_expert_bias")  # a buffer in transformers
    dims = read_dims(fields, tied=True)
    experts, chosen = experts_of(fields)
    dense = Mlp(intermediate=dims.intermediate, names=_LFM2_MLP)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        names=MoeNames(
            router="feed_forward.gate",
            gate_up="feed_forward.experts.gate_up_proj",
            down="feed_forward.experts.down_proj",
        ),
    )
    first = size(fields, "num_dense_layers", default=2, least=0)
    return _lfm2(fields, name, dims, [dense if i < first else moe for i in range(dims.layers)])


def _older_spellings(fields: Fields, **spellings: str) -> None:
    """Rename older keys to newer ones; if a config has both, the older key takes precedence."""
    given = {new: fields.raw(old) for old, new in spellings.items()}
    fields.data = {**fields.data, **{key: value for key, value in given.items() if value is not None}}


_LFM2_MLP = MlpNames(gate="feed_forward.w1", up="feed_forward.w3", down="feed_forward.w2")


def _lfm2(fields: Fields, name: str, dims: Dims, feeds: Sequence[Layer]) -> ModelConfig:
    attention = self_attention(
        dims,
        qk=QkNorm.HEAD,
        names=AttentionNames(o="self_attn.out_proj", q_norm="self_attn.q_layernorm", k_norm="self_attn.k_layernorm"),
    )
    conv = ShortConvolution(taps=size(fields, "conv_L_cache", default=3), bias=fields.flag("conv_bias", False))
    listed = fields.sequence("full_attn_idxs", most=MOST_LAYERS)
    attends = _layer_types(fields, dims.layers, "conv", lambda i: i in listed or not listed)
    norms = ("operator_norm", "ffn_norm")
    blocks: list[Layer] = [
        wrapped(attention if has else conv, feed, before=norms) for has, feed in zip(attends, feeds, strict=True)
    ]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.embedding_norm"))


def lfm3(fields: Fields, name: str) -> ModelConfig:
    """LFM2 with norms after sublayers, a gate per head, sliding windows in some layers (transformers, `Lfm3Config`)."""
    dims = read_dims(fields, tied=True)
    gated = fields.flag("use_attention_gate", True)
    full = replace(
        attention_of(fields, dims, qk=QkNorm.HEAD),
        gated=gated,
        gates_heads=gated,
        names=AttentionNames(gate="self_attn.g_proj" if gated else ""),
    )
    kinds = per_layer(fields, "layer_types", dims.layers, ("conv", SLIDES, SEES_ALL), _lfm3_kind)
    mixers: dict[str, Layer] = {
        "conv": ShortConvolution(taps=size(fields, "conv_L_cache", default=7), bias=fields.flag("conv_bias", False)),
        SLIDES: replace(full, window=size(fields, "sliding_window", default=0, least=0)),
        SEES_ALL: full,
    }
    mlp = Mlp(intermediate=dims.intermediate, names=_LFM2_MLP)
    after = ("post_operator_norm", "post_ffn_norm") if fields.flag("use_sandwich_norm", True) else None
    blocks = [wrapped(mixers[kind], mlp, before=("operator_norm", "ffn_norm"), after=after) for kind in kinds]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.embedding_norm"))


def _lfm3_kind(i: int) -> str:
    return SEES_ALL if i % 4 == 2 else SLIDES if i % 4 == 0 and i else "conv"


def _lfm2_width(fields: Fields, given: int) -> int:
    """The MLP's width: two thirds of the config's, rounded up to a multiple, as in Llama 1."""
    multiple = size(fields, "block_multiple_of", default=256)
    factor = fields.number("block_ffn_dim_multiplier", 1.0)
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return given
    if not 0.0 < factor < 1000.0:
        fields.problem("block_ffn_dim_multiplier", "is not allowed; expected a factor above 0 and below 1000")
        return given
    width = max(int(factor * (2 * given // 3)), 1)
    return multiple * -(-width // multiple)


def recurrent_gemma(fields: Fields, name: str) -> ModelConfig:
    """Two recurrent layers, then one with a sliding window; MLPs have half the config's width."""
    fields.data = {"num_key_value_heads": fields.data.get("num_attention_heads"), **fields.data}
    dims = read_dims(fields, tied=True)
    bias = fields.flag("attention_bias", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        window=size(fields, "attention_window_size", default=2048),
        qkv_bias=bias,
        out_bias=True,
        names=AttentionNames(**{part: f"temporal_block.{part}_proj" for part in "qkvo"}),
    )
    width = size(fields, "lru_width", default=dims.hidden)
    if width % dims.heads:
        fields.problem("lru_width", f"is not a multiple of the {dims.heads} attention heads, which have a gate each")
    recurrence = GatedRecurrence(
        width=width,
        heads=dims.heads,
        taps=size(fields, "conv1d_width", default=4),
    )
    names = {part: f"mlp_block.{part}_proj" for part in ("gate", "up", "down")}
    mlp = Mlp(intermediate=max(dims.intermediate // 2, 1), bias=True, names=MlpNames(**names))
    pattern = kinds(fields, "block_types", "recurrent", "attention") or ["recurrent", "recurrent", "attention"]
    norms = ("temporal_pre_norm", "channel_pre_norm")
    blocks: list[Layer] = [
        wrapped(attention if pattern[i % len(pattern)] == "attention" else recurrence, mlp, before=norms)
        for i in range(dims.layers)
    ]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.final_norm"))


FAMILIES: dict[str, Reader] = {
    "qwen3_next": qwen3_next,
    "qwen3_5": qwen3_next,
    "qwen3_5_text": qwen3_next,
    "qwen3_5_moe_text": qwen3_5_moe,
    "qwen3_5_moe": qwen3_5_moe,
    "lara_mini": lara_mini,
    "minimax": minimax,
    "minimax_text_01": minimax,
    "minimax_m1": minimax,
    "lfm2": lfm2,
    "lfm2_moe": lfm2_moe,
    "lfm3": lfm3,
    "recurrent_gemma": recurrent_gemma,
}
"""Readers by `model_type`."""
