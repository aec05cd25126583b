"""Common parts of encoder-decoders with biases and LayerNorm: the dimensions of a side, its layers, the model.

`...ForCausalLM` of these families is only the decoder. The class keeps cross-attention although there is no encoder, so
its weights are counted and take memory, but are never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size, unused
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Part, Residual, Unused
from graphsim.models.layers.cross_attention import CROSS_NAMES, CrossAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer

NAMES = AttentionNames(o="self_attn.out_proj")
MLP_NAMES = MlpNames(up="fc1", down="fc2")

_GENERATES = ("ForConditionalGeneration", "ForCausalLM", "MTModel", "ForTextToText")


def is_alone(fields: Fields, also: str = "") -> bool:
    """Whether the config describes only a decoder, by its class, or by `is_encoder_decoder` if it names none.

    also: further allowed classes, named in the message
    """
    given, both = fields.sequence("architectures"), fields.flag("is_encoder_decoder", True)
    if not given:
        return not both
    named = str(given[0])
    if not named.endswith(_GENERATES):
        expected = f"a class for causal or conditional generation{also}"
        fields.problem("architectures", f"is not simulated; expected {expected}")
    return named.endswith("ForCausalLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Placement of norms and biases in a family.

    pre_norm: whether norms are before sublayers, else after the residual sums
    key_bias: whether keys have a bias, as queries and values do
    source_width: width of the encoder's rows, if not that of the decoder
    norms: names of the norms of self-attention, cross-attention and the MLP
    """

    pre_norm: bool = True
    bias: bool = True
    key_bias: bool = True
    source_width: int = 0
    cross: AttentionNames = CROSS_NAMES
    mlp: MlpNames = MLP_NAMES
    norms: tuple[str, str, str] = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The dimensions of an encoder or a decoder."""

    hidden: int
    depth: int
    heads: int
    intermediate: int

    def attention(self, style: Style, cached: bool) -> SelfAttention:
        """The side's self-attention."""
        return SelfAttention(
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.hidden // self.heads,
            qkv_bias=style.bias,
            out_bias=style.bias,
            key_bias=style.key_bias,
            rope=False,
            cached=cached,
            names=NAMES,
        )

    def encoder_layers(self, style: Style, feeds: Sequence[Layer] = ()) -> tuple[Layer, ...]:
        """Layers with bidirectional attention.

        feeds: their feed-forward parts, if not plain MLPs
        """
        attention, usual = self.attention(style, cached=False), [self.mlp(style)] * self.depth
        return tuple(Block(parts=tuple(self._parts(style, attention, None, feed))) for feed in feeds or usual)

    def decoder_layers(self, style: Style, alone: bool = False, feeds: Sequence[Layer] = ()) -> tuple[Layer, ...]:
        """Layers with causal self-attention and cross-attention.

        alone: whether there is no encoder
        feeds: as in `encoder_layers`
        """
        cross = CrossAttention(
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.hidden // self.heads,
            width=style.source_width,
            bias=style.bias,
            out_bias=style.bias,
            key_bias=style.key_bias,
            names=style.cross,
        )
        attention, usual = self.attention(style, cached=True), [self.mlp(style)] * self.depth
        return tuple(Block(parts=tuple(self._parts(style, attention, cross, feed, alone))) for feed in feeds or usual)

    def mlp(self, style: Style) -> Mlp:
        """The plain feed-forward part."""
        return Mlp(intermediate=self.intermediate, gated=False, bias=True, names=style.mlp)

    def _parts(
        self, style: Style, attention: Layer, cross: CrossAttention | None, feed: Layer, alone: bool = False
    ) -> Iterator[Part]:
        own, crossed, last = style.norms
        yield from _part(style, "attn_residual", attention, own)
        for part in () if cross is None else _part(style, "cross_residual", cross, crossed):
            yield Unused(part=part) if alone else part
        yield from _part(style, "mlp_residual", feed, last)


def _part(style: Style, name: str, layer: Layer, norm: str) -> Iterator[Residual | NormLayer]:
    normed = NormLayer(name=norm, kind="layer")
    yield Residual(name=name, norm=normed if style.pre_norm else None, branches=(Branch(layer=layer),))
    if not style.pre_norm:
        yield normed


_FAIRSEQ = (
    "extra_pos_embeddings", "static_position_embeddings", "normalize_before", "normalize_embedding",
    "add_final_layer_norm", "add_bias_logits",
)  # fmt: skip
"""Keys of the original training code, which the classes do not read (transformers 5.24)."""

_OF_ENCODER = {"num_hidden_layers": "encoder_layers", "num_attention_heads": "encoder_attention_heads"}
"""Aliases of common keys (transformers 5.24, attribute_map of `configuration_bart.py`)."""


def side_of(fields: Fields, kind: str) -> Side:
    """The dimensions of the `encoder` or the `decoder`."""
    unused(fields, *_FAIRSEQ)
    for common, own in _OF_ENCODER.items():
        if fields.raw(common) not in (None, fields.data.get(own)):
            fields.problem(common, f"is not {own}, for which it stands; expected {fields.data.get(own)}")
    hidden, heads = size(fields, "d_model", "hidden_size"), size(fields, f"{kind}_attention_heads")
    if hidden % heads:
        fields.problem(f"{kind}_attention_heads", f"does not divide d_model = {hidden}")
        heads = 1
    return Side(
        hidden=hidden,
        depth=size(fields, f"{kind}_layers", most=MOST_LAYERS),
        heads=heads,
        intermediate=size(fields, f"{kind}_ffn_dim"),
    )
