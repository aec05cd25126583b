"""Llama 3.2 Vision's image tower: tiles encoded together, gated layers, outputs of intermediate layers."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, layer_of, patch_side, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.block import Block
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Take, Weights
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.scale import Scale
from graphsim.models.media import Media

_MODULE = "model.vision_model."
_FILLED_TO = 8
"""Rows of a tile are padded to a multiple of this (`MllamaVisionModel.forward`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas(Cut):
    """An image is one piece of several tiles, with empty tiles as padding.

    tiles: number of tiles of a piece
    side: number of patches along a side of each
    """

    tiles: int
    side: int

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        return Pieces(count=float(media.images), height=float(self.tiles * self.side), width=float(self.side))


def mllama(parts: Parts) -> tuple[Encoder, ...]:
    """Gated tile and patch positions; the language model cross-attends to the rows."""
    vision = parts.nested("vision_config", "mllama_vision_model")
    width, tiles, patch = size(vision, "hidden_size"), size(vision, "max_num_tiles", default=4), patch_side(vision)
    side = sides(vision)[0] // patch
    patches = side**2 + 1
    taken = list(vision.sequence("intermediate_layers_indices", most=MOST_LAYERS)) or [3, 7, 15, 23, 30]
    out = size(vision, "vision_output_dim", default=7680)
    if out != width * (1 + len(taken)):
        vision.problem("vision_output_dim", f"is not hidden_size times 1 and the {len(taken)} layers that are taken")
    ratios = 1 + len(vision.sequence("supported_aspect_ratios") or range(8))
    alone, held, filled = Rows(), Rows(fixed=tiles * patches), Rows(fixed=tiles * (patches + -patches % _FILLED_TO))
    inputs = size(vision, "num_channels", default=3) * patch**2
    start = (
        PatchEmbedding(module="patch_embedding", inputs=inputs),
        _table("pre_tile_positional_embedding", ratios, tiles * width),
    )
    own = (
        Weights(names=("class_embedding",)),
        Weights(names=("gated_positional_embedding.embedding",), entries=patches, added=True),
        _table("gated_positional_embedding", ratios, tiles * patches * width, "tile_embedding"),
        NormLayer(name="layernorm_pre", kind="layer"),
    )
    post = _table("post_tile_positional_embedding", ratios, tiles * width)
    behind = (NormLayer(name="layernorm_post", kind="layer"), post)
    layers, gated = size(vision, "num_hidden_layers", most=MOST_LAYERS), size(vision, "num_global_layers", default=8)
    project = Projector(linears=(Linear(module="multi_modal_projector", n=parts.hidden),))
    sections = (
        Section(layers=start, hidden=width, rows=alone, prefix=_MODULE),
        Section(layers=own, hidden=width, rows=held, prefix=_MODULE),
        Section(layers=(_layer(vision),) * layers, hidden=width, rows=filled,
                prefix=f"{_MODULE}transformer.layers.{{}}."),
        Section(layers=behind, hidden=width, rows=filled, prefix=_MODULE),
        Section(layers=(_layer(vision, gated=True),) * gated, hidden=width, rows=filled,
                prefix=f"{_MODULE}global_transformer.layers.{{}}."),
        Section(layers=(Idle(kept=_GATES),), hidden=width, rows=filled, prefix=_MODULE, idle=True),
        Section(layers=(Take(), project), hidden=out, rows=held, prefix="model."),
    )  # fmt: skip
    cut = Canvas(tiles=tiles, side=side)
    return (Encoder(name="vision", cut=cut, sections=sections, seen=True),)


_GATES = tuple(
    Kept(name=f"{table}_positional_embedding.gate", entries=1) for table in ("gated", "pre_tile", "post_tile")
)
"""Gates of the three position tables."""


def _table(name: str, ratios: int, width: int, own: str = "embedding") -> Weights:
    """A table with one row per aspect ratio, which holds the positions of all its tiles."""
    return Weights(names=(f"{name}.{own}",), entries=ratios, width=width, added=True)


def _layer(vision: Fields, *, gated: bool = False) -> Block:
    known = vision.child(
        {**vision.data, "num_attention_heads": size(vision, "attention_heads", "num_attention_heads")},
        vision.path, lenient=True,
    )  # fmt: skip
    names = AttentionNames(**{part: f"self_attn.{part}_proj" for part in "qkvo"})
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    gates = (Scale(name="gate_attn", scalar=True), Scale(name="gate_ffn", scalar=True)) if gated else (None, None)
    attention = attention_of(known, bias=False, names=names)
    return layer_of(attention, mlp, ("input_layernorm", "post_attention_layernorm"), scales=gates)


WHOLES: dict[str, Whole] = {"mllama": Whole(encoders=mllama, alone=("MllamaForCausalLM",))}
"""Readers by `model_type` of the whole model."""
