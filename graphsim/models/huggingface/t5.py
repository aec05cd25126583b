"""T5 and similar models: pre-norm without biases, relative position biases on the scores (arXiv 1910.10683)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, size, unused
from graphsim.models.huggingface.heads import note_of
from graphsim.models.huggingface.seq2seq import is_alone
from graphsim.models.layers.answers import Answer
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Part, Residual
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.ends import TIED, Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder

_PARTS = {"q": "q", "k": "k", "v": "v", "o": "o"}


def _names(module: str) -> AttentionNames:
    return AttentionNames(
        **{name: f"{module}.{part}" for name, part in _PARTS.items()}, biases=f"{module}.relative_attention_bias"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """The dimensions of a stack, and the layers that have their own table of position biases.

    everywhere: whether all layers have one, not only the first (UMT5, arXiv 2304.09151)
    """

    heads: int
    head_dim: int
    buckets: int
    everywhere: bool
    attention: str = "SelfAttention"

    def layers(self, count: int, mlps: list[Layer], cross: CrossAttention | None = None) -> tuple[Layer, ...]:
        """The layers of an encoder, or of a decoder that attends to one."""
        return tuple(self._layer(i == 0 or self.everywhere, mlps[i], cross) for i in range(count))

    def _layer(self, own: bool, mlp: Layer, cross: CrossAttention | None) -> Layer:
        attention = SelfAttention(
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.head_dim,
            rope=False,
            cached=cross is not None,
            biased=True,
            buckets=self.buckets if own else 0,
            names=_names(f"layer.0.{self.attention}"),
        )
        inner = [("attn_residual", attention), *([("cross_residual", cross)] if cross else []), ("mlp_residual", mlp)]
        return Block(parts=tuple(_part(i, name, layer) for i, (name, layer) in enumerate(inner)))


def _part(place: int, name: str, layer: Layer) -> Part:
    norm = NormLayer(name=f"layer.{place}.layer_norm")
    return Residual(name=name, norm=norm, branches=(Branch(layer=layer),))


Feeds = Callable[[Fields, int, int, str], list[Layer]]
"""Feed-forward parts of a side, given the fields, number of layers, index within the layer, `encoder` or `decoder`."""


def t5(fields: Fields, name: str) -> ModelConfig:
    """T5, mT5 and UMT5."""
    return assembled(fields, name, _dense, own_head=not fields.flag("tie_word_embeddings", True))


def assembled(fields: Fields, name: str, feeds: Feeds, own_head: bool = False) -> ModelConfig:
    """An encoder and a decoder with a shared embedding, tied to the output head unless the checkpoint has one."""
    kind, encodes = fields.data.get("model_type"), _encodes(fields)
    if not encodes and is_alone(fields, ", or EncoderModel for the encoder alone"):
        fields.problem("architectures", "is not simulated; expected an encoder-decoder that generates")
    hidden, vocab = size(fields, "d_model", "hidden_size"), size(fields, "vocab_size")
    depth = size(fields, "num_layers", "num_hidden_layers", most=MOST_LAYERS)
    style = _Style(
        heads=size(fields, "num_heads", "num_attention_heads"),
        head_dim=size(fields, "d_kv", "head_dim"),
        buckets=size(fields, "relative_attention_num_buckets"),
        everywhere=kind == "umt5",
    )
    unused(fields, "relative_attention_max_distance", "dense_act_fn", "n_positions")
    if encodes:
        unused(fields, "num_decoder_layers", "num_sparse_decoder_layers")
        return _encoder(name, hidden, vocab, style.layers(depth, feeds(fields, depth, 1, "encoder")))
    decoder_depth = size(fields, "num_decoder_layers", default=depth, most=MOST_LAYERS)
    cross = CrossAttention(
        heads=style.heads, kv_heads=style.heads, head_dim=style.head_dim, names=_names("layer.1.EncDecAttention")
    )
    return ModelConfig(
        name=name,
        hidden_size=hidden,
        stem=Stem(vocab_size=vocab, module="shared"),
        layers=style.layers(decoder_depth, feeds(fields, decoder_depth, 2, "decoder"), cross),
        head=Head(vocab_size=vocab, tied=True, own_if_stored=own_head, norm=NormLayer(name="decoder.final_layer_norm")),
        layer_prefix="decoder.block.{}.",
        source_encoder=SourceEncoder(
            kind=str(kind),
            hidden_size=hidden,
            stem=Stem(vocab_size=vocab, module="encoder.embed_tokens", shared=True),
            layers=style.layers(depth, feeds(fields, depth, 1, "encoder")),
            tail=NormLayer(name="encoder.final_layer_norm"),
            layer_prefix="encoder.block.{}.",
        ),
        notes=(_note(fields),) if own_head else (),
    )


def _encodes(fields: Fields) -> bool:
    """Whether the class is only the encoder, such as T5EncoderModel."""
    given = fields.sequence("architectures")
    return bool(given) and str(given[0]).endswith("EncoderModel")


def _encoder(name: str, hidden: int, vocab: int, layers: tuple[Layer, ...]) -> ModelConfig:
    """Only the encoder, which embeds text or conditions an image model (transformers 5.24, `modeling_t5.py`)."""
    return ModelConfig(
        name=name,
        hidden_size=hidden,
        stem=Stem(vocab_size=vocab, module="shared"),
        layers=layers,
        head=Answer(norm=NormLayer(name="encoder.final_layer_norm"), per_token=True),
        layer_prefix="encoder.block.{}.",
        notes=(note_of("the encoder alone"),),
    )


def _dense(fields: Fields, depth: int, place: int, side: str) -> list[Layer]:
    return [_mlp(fields, place)] * depth


def _mlp(fields: Fields, place: int) -> Mlp:
    """The feed-forward part at index `place` of its layer; gated by `is_gated_act`, else by `feed_forward_proj`."""
    kind = fields.text("feed_forward_proj", "relu")
    gated = fields.flag("is_gated_act", kind.split("-")[0] == "gated")
    if "-" in kind.removeprefix("gated-"):
        fields.problem("feed_forward_proj", "is not allowed; expected a function's name, or gated- and that name")
    prefix = f"layer.{place}.DenseReluDense"
    names = MlpNames(gate=f"{prefix}.wi_0", up=f"{prefix}.{'wi_1' if gated else 'wi'}", down=f"{prefix}.wo")
    return Mlp(intermediate=size(fields, "d_ff", "intermediate_size"), gated=gated, names=names)


def _note(fields: Fields) -> str:
    """The note on the output head.

    transformers 5.24 instantiates it tied, regardless of the config (`configuration_t5.py`), and unties it if the
    checkpoint has a different head (`modeling_utils.py`, `tie_weights`).
    """
    table = size(fields, "d_model", "hidden_size") * size(fields, "vocab_size")
    return (
        f"{TIED}, as transformers instantiates it whatever tie_word_embeddings says; "
        f"checkpoints that hold one of their own have {table:,} parameters more"
    )


FAMILIES: dict[str, Reader] = {"t5": t5, "mt5": t5, "umt5": t5}
"""Readers by `model_type`."""
