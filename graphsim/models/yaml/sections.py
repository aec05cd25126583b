"""The sections of a model file that describe a layer's parts: attention, MLP, norms, residuals."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import VECTORS, NormLayer
from graphsim.models.yaml.overrides import Overrides

MOST_HEADS = 65_536
MOST_WEIGHTS = 10**13
MOST_WIDTH = 10_000_000
MOST_TOKENS = 10**9
MOST_VOCABULARY = 100_000_000
PLACEMENTS = ("pre", "post", "both")
RESIDUALS = ("sequential", "parallel", "parallel_two_norms")

_NORM_NAMES = {
    "pre": ("input_layernorm", "", "post_attention_layernorm", ""),
    "post": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}
"""Module names of norms in Hugging Face's Llama, OLMo-2 and Gemma-2: before and after attention, then the MLP."""


def attention(section: Overrides, hidden: int) -> SelfAttention:
    """The softmax attention that the section describes."""
    heads = section.integer("heads", most=MOST_HEADS)
    kv_heads = section.integer("kv_heads", heads, most=MOST_HEADS)
    if heads % kv_heads:
        section.problem("kv_heads", f"does not divide heads = {heads}; allowed: a divisor of {heads}")
    bias = section.flag("bias", False)
    return SelfAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(section, heads, hidden),
        value_dim=section.integer("value_dim", 0, least=0, most=MOST_WIDTH),
        window=section.integer("window", 0, least=0, most=MOST_TOKENS),
        qkv_bias=section.flag("qkv_bias", bias),
        out_bias=section.flag("out_bias", bias),
        rope=section.flag("rope", True),
        qk_norm=QkNorm(section.text("qk_norm", "none", [kind.value for kind in QkNorm])),
        gated=section.flag("gated", False),
        sinks=section.flag("sinks", False),
        soft_cap=section.number("soft_cap", 0.0, 0.0, 1e6) > 0.0,
        names=_attention_names(section.below("names")),
    )


def _head_dim(section: Overrides, heads: int, hidden: int) -> int:
    if "head_dim" not in section and hidden % heads:
        section.problem("head_dim", f"is missing; heads = {heads} does not divide hidden_size = {hidden}")
        return 1
    return int(section.integer("head_dim", max(hidden // heads, 1), most=MOST_WIDTH))


def _attention_names(names: Overrides) -> AttentionNames:
    usual = AttentionNames()
    return AttentionNames(
        q=names.text("q", usual.q),
        k=names.text("k", usual.k),
        v=names.text("v", usual.v),
        o=names.text("o", usual.o),
        fused=names.text("qkv", usual.fused),
        q_norm=names.text("q_norm", usual.q_norm),
        k_norm=names.text("k_norm", usual.k_norm),
    )


def mlp(section: Overrides) -> Mlp:
    """The MLP that the section describes."""
    names, usual = section.below("names"), MlpNames()
    return Mlp(
        intermediate=section.integer("intermediate_size", most=MOST_WIDTH),
        gated=section.flag("gated", True),
        bias=section.flag("bias", False),
        names=MlpNames(
            gate=names.text("gate", usual.gate),
            up=names.text("up", usual.up),
            down=names.text("down", usual.down),
            fused=names.text("gate_up", usual.fused),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """The norms of a layer: before and after attention, before and after the MLP; None for absent ones."""

    before: NormLayer | None
    behind: NormLayer | None
    before_mlp: NormLayer | None
    behind_mlp: NormLayer | None


def norms(layer: Overrides) -> Norms:
    """The norms of a layer, by kind, placement and name."""
    kind = layer.text("norm", "rms", VECTORS)
    placement = layer.text("norm_placement", "pre", PLACEMENTS)
    names = layer.below("norm_names")
    keys = ("attention", "attention_post", "mlp", "mlp_post")
    found = [
        NormLayer(name=names.text(key, usual), kind=kind) if usual else None
        for key, usual in zip(keys, _NORM_NAMES[placement], strict=True)
    ]
    return Norms(before=found[0], behind=found[1], before_mlp=found[2], behind_mlp=found[3])


def block(layer: Overrides, mixer: Layer | None, feed_forward: Layer | None) -> Block:
    """The layer with mixer and feed-forward part on the residual stream, or only one of them."""
    around = norms(layer)
    residual = layer.text("residual", "sequential", RESIDUALS)
    if mixer is None or feed_forward is None:
        if residual != "sequential":
            layer.problem("residual", "needs a mixer and a feed_forward part; expected sequential for a layer of one")
        if (only := mixer or feed_forward) is None:
            layer.problem("mixer", "leaves a layer without any part; give it a mixer or a feed_forward part")
            return Block(parts=())
        before, behind = (around.before, around.behind) if mixer else (around.before_mlp, around.behind_mlp)
        return Block(parts=(Residual(name="residual", norm=before, branches=(Branch(layer=only),), post_norm=behind),))
    if residual == "parallel_two_norms":
        first = Branch(layer=mixer, norm=around.before, post_norm=around.behind)
        second = Branch(layer=feed_forward, norm=around.before_mlp, post_norm=around.behind_mlp)
        return Block(parts=(Residual(name="residual", branches=(first, second)),))
    if residual == "parallel":
        bare = (Branch(layer=mixer, post_norm=around.behind), Branch(layer=feed_forward, post_norm=around.behind_mlp))
        return Block(parts=(Residual(name="residual", norm=around.before, branches=bare),))
    parts = (
        ("attn_residual", around.before, mixer, around.behind),
        ("mlp_residual", around.before_mlp, feed_forward, around.behind_mlp),
    )
    return Block(
        parts=tuple(
            Residual(name=name, norm=before, branches=(Branch(layer=layer),), post_norm=behind)
            for name, before, layer, behind in parts
        )
    )
