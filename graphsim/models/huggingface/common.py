"""Common parts of all family readers: dimensions under alternative keys, layer types, assembly of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphsim.files.reading import REQUIRED, Fields
from graphsim.models.config import ModelConfig
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.units import short

Reader = Callable[[Fields, str], ModelConfig]
"""Reader of a family: returns the model, given the fields of a config and the model's name."""

MOST_LAYERS, MOST = 2_000, 10**8
"""Upper bounds of the number of layers, and of any dimension; larger values are errors."""


_USUAL_NAMES = AttentionNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dims:
    """The dimensions that nearly all decoders have."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    positions: int
    tied: bool
    soft_cap: bool = False


def size(fields: Fields, *names: str, default: int | None = None, least: int = 1, most: int = MOST) -> int:
    """The value of the first key that the config gives; if it gives none, the default, or else a problem."""
    present = next((name for name in names if name in fields), names[0])
    value: int = fields.integer(present, REQUIRED if default is None else default, least=least, most=most)
    for name in names:
        fields.raw(name)
    return value


def unused(fields: Fields, *names: str) -> None:
    """Mark keys as read that a family's class has in its config but never uses (verified by changing them)."""
    for name in names:
        fields.raw(name)


def padded(fields: Fields) -> None:
    """Replace the vocabulary size by `padded_vocab_size`, the actual number of table rows, if it is given."""
    rows = fields.raw("padded_vocab_size")
    if rows is not None:
        fields.data = {**fields.data, "vocab_size": rows}


def with_drafts(config: ModelConfig, fields: Fields, key: str = "num_nextn_predict_layers") -> ModelConfig:
    """The model, with a note if its checkpoint has additional layers that draft further tokens.

    transformers does not load them (`_keys_to_ignore_on_load_unexpected`), and engines run them for speculation only.
    """
    drafts = size(fields, key, default=0, least=0, most=MOST_LAYERS)
    if not drafts:
        return config
    text = f"{key} = {drafts}: the checkpoint's layers for multi-token prediction are left out"
    return replace(config, notes=(*config.notes, text))


def read_dims(
    fields: Fields,
    *,
    tied: bool = False,
    ties: bool = True,
    kv_heads: int | None = None,
    mlp_factor: int = 0,
    floor: bool = False,
) -> Dims:
    """The dimensions, under any of the usual keys.

    tied: the family's default for tied embeddings
    ties: whether its class supports tied embeddings at all
    kv_heads: number of key heads, if the config has no key for it
    mlp_factor: default width of the MLP as a multiple of the hidden size; 0 if the config must state it
    floor: whether the number of heads need not divide the hidden size
    """
    hidden = size(fields, "hidden_size", "n_embd", "n_embed", "d_model")
    heads = size(fields, "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
    given = size(fields, "head_dim", "kv_channels", default=0)
    if not given and not fields.problems and (hidden % heads and not floor or hidden < heads):
        found = f"hidden_size = {hidden} is not a multiple of the {heads} attention heads"
        fields.problems.append(f"{found}, and head_dim is missing")
    groups = kv_heads or size(fields, "num_key_value_heads", default=heads)
    if heads % groups:
        fields.problems.append(f"num_key_value_heads = {groups} does not divide the {heads} attention heads")
    return Dims(
        hidden=hidden,
        layers=size(fields, "num_hidden_layers", "n_layer", "n_layers", "num_layers", most=MOST_LAYERS),
        heads=heads,
        kv_heads=groups,
        head_dim=given or max(hidden // heads, 1),
        intermediate=size(
            fields, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", default=mlp_factor * hidden or None
        ),
        vocab=size(fields, "vocab_size"),
        positions=size(fields, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", default=0, least=0),
        tied=fields.flag("tie_word_embeddings", tied) and ties,
        soft_cap=bool(fields.number("final_logit_softcapping", fields.number("logits_soft_cap", 0.0))),
    )


def self_attention(
    dims: Dims,
    *,
    kv_heads: int | None = None,
    bias: bool = False,
    window: int = 0,
    qk: QkNorm = QkNorm.NONE,
    names: AttentionNames = _USUAL_NAMES,
) -> SelfAttention:
    """Attention with the heads of `dims`.

    kv_heads: number of key heads, if not that of the config
    bias: whether all projections have a bias
    """
    return SelfAttention(
        heads=dims.heads,
        kv_heads=kv_heads or dims.kv_heads,
        head_dim=dims.head_dim,
        window=window,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=qk,
        names=names,
    )


def layer_config(fields: Fields, i: int, *keys: str) -> Fields:
    """The entry of `per_layer_config` for layer i, in which only `keys` may differ."""
    listed = fields.raw("per_layer_config", {})
    if not isinstance(listed, Mapping):
        fields.problem("per_layer_config", "is not allowed; expected a mapping from layers to what differs in them")
        listed = {}
    entry = listed.get(f"{i:02d}", listed.get(str(i), listed.get(i, {})))
    layer = fields.child(entry, f"per_layer_config.{i:02d}", lenient=True)
    for key in sorted(set(layer.keys()) - set(keys)):
        layer.problem(key, f"is not simulated; only {' and '.join(keys)} may differ by layer")
    return layer


def indices(fields: Fields, key: str) -> frozenset[int]:
    """The layers whose indices are in a list."""
    listed = fields.sequence(key)
    if all(type(entry) is int for entry in listed):
        return frozenset(listed)
    fields.problem(key, "is not allowed; expected a list of whole numbers")
    return frozenset()


SLIDES, SEES_ALL = "sliding_attention", "full_attention"
"""Names in `layer_types` of the two kinds of softmax attention."""


def per_layer(
    fields: Fields, key: str, layers: int, allowed: Sequence[str], fallback: Callable[[int], str]
) -> list[str]:
    """The kind of each layer, one of `allowed`, as listed in the config; without a list, by the family's rule.

    fallback: the family's rule: the kind of layer i
    """
    listed = kinds(fields, key, *allowed)
    if listed and len(listed) != layers:
        fields.problems.append(f"{key} has {len(listed)} entries, expected one for each of {layers} layers")
        listed = []
    return listed or [fallback(i) for i in range(layers)]


def kinds(fields: Fields, key: str, *allowed: str) -> list[str]:
    """The kinds of layers as listed in the config; entries not in `allowed` are a problem and give an empty list."""
    listed = [str(entry) for entry in fields.sequence(key, most=MOST_LAYERS)]
    strange = next((entry for entry in listed if entry not in allowed), None)
    if strange is None:
        return listed
    fields.problems.append(f"{fields.name(key)} has an entry {short(strange)}; allowed: {', '.join(allowed)}")
    return []


def windows(fields: Fields, layers: int, fallback: Callable[[int], bool] = lambda i: False) -> list[int]:
    """Each layer's sliding window, 0 for full attention.

    fallback: the family's rule, used without `layer_types`: whether layer i has a sliding window
    """
    window = size(fields, "sliding_window", default=0, least=0)
    kinds = per_layer(fields, "layer_types", layers, (SLIDES, SEES_ALL), lambda i: SLIDES if fallback(i) else SEES_ALL)
    return [window if kind == SLIDES else 0 for kind in kinds]


def sliding_pattern(fields: Fields, layers: int) -> Callable[[int], bool]:
    """Which layers slide: all but every n-th, or by a repeated pattern of letters L and G; the last one never does."""
    given = fields.raw("sliding_window_pattern", 4)
    if isinstance(given, str):
        if not given or set(given) - set("LG"):
            fields.problem("sliding_window_pattern", "is not allowed; expected a number or letters L and G")
            given = "G"
        return lambda i: given[i % len(given)] == "L" and i < layers - 1
    every = size(fields, "sliding_window_pattern", default=4)
    return lambda i: (i + 1) % every != 0


def assemble(
    name: str,
    dims: Dims,
    layers: Sequence[Layer],
    *,
    norm: NormLayer | None = None,
    stem: Stem | None = None,
    head: Head | None = None,
    prefix: str = "model.layers.{}.",
) -> ModelConfig:
    """A decoder with the usual embeddings and head, unless others are given."""
    usual = Head(
        vocab_size=dims.vocab, tied=dims.tied, soft_cap=dims.soft_cap, norm=norm or NormLayer(name="model.norm")
    )
    return ModelConfig(
        name=name,
        hidden_size=dims.hidden,
        stem=stem or Stem(vocab_size=dims.vocab),
        layers=tuple(layers),
        head=head or usual,
        layer_prefix=prefix,
        max_positions=dims.positions,
    )


def pre_norm(
    attention: Layer,
    mlp: Layer,
    kind: str = "rms",
    names: tuple[str, str] = ("input_layernorm", "post_attention_layernorm"),
) -> Block:
    """Pre-norm attention, then a pre-norm MLP."""
    return wrapped(attention, mlp, kind, before=names)


def wrapped(
    attention: Layer,
    mlp: Layer,
    kind: str = "rms",
    *,
    before: tuple[str, str] | None = None,
    after: tuple[str, str] | None = None,
) -> Block:
    """Attention, then MLP, with norms before each, after each, or both."""
    parts = []
    for i, (label, layer) in enumerate((("attn_residual", attention), ("mlp_residual", mlp))):
        norm = NormLayer(name=before[i], kind=kind) if before else None
        post = NormLayer(name=after[i], kind=kind) if after else None
        parts.append(Residual(name=label, norm=norm, post_norm=post, branches=(Branch(layer=layer),)))
    return Block(parts=tuple(parts))


def parallel(
    attention: Layer, mlp: Layer, *, norm: NormLayer | None = None, norms: tuple[NormLayer, ...] = ()
) -> Block:
    """Attention and MLP in parallel, after a common norm or separate norms."""
    own = norms or (None, None)
    branches = tuple(Branch(layer=layer, norm=each) for layer, each in zip((attention, mlp), own, strict=True))
    return Block(parts=(Residual(name="residual", norm=norm, branches=branches),))
