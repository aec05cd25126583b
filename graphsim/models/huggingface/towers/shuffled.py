"""SigLIP towers with pixel shuffle into fewer, wider rows: Idefics3, SmolVLM, LFM2-VL, Command A."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.tiles import Split, Tiles
from graphsim.models.huggingface.towers.trunks import (
    patch_side,
    pooling_head,
    siglip_layers,
    trunk_of,
)
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Take
from graphsim.models.layers.projector import GatedProjector, Linear, Projector
from graphsim.models.media import Media

SPLIT_TIMES = 4
"""Tiles along an image's longer side: `image_processing_idefics3.py`, and `preprocessor_config.json` of SmolVLM."""


def idefics3(parts: Parts) -> tuple[Encoder, ...]:
    """One linear layer on concatenated patches (arXiv 2408.12637, section 2.3)."""
    trunk = trunk_of(parts.nested("vision_config", "idefics3_vision"), "model.vision_model")
    side = size(parts.fields, "scale_factor", default=2)
    project = Projector(linears=(Linear(module="modality_projection.proj", n=parts.hidden, bias=False),))
    whole = all(length // trunk.patch % side == 0 for length in trunk.image)
    last = Section(
        layers=(project,) if whole else (Take(), project), hidden=trunk.width * side**2, rows=Rows(shared=side**2),
        prefix="model.connector.",
    )  # fmt: skip
    cut = Split(side=trunk.image[0], patch=trunk.patch, longest=SPLIT_TIMES * trunk.image[0])
    return (Encoder(name="vision", cut=cut, sections=(*trunk.sections, last)),)


def cohere2(parts: Parts) -> tuple[Encoder, ...]:
    """A gated MLP on concatenated patches (transformers 5.24, `cohere2_vision`)."""
    trunk = trunk_of(parts.nested("vision_config", "siglip_vision_model"), "model.vision_tower")
    side, inner = size(parts.fields, "downsample_factor", default=2), size(parts.fields, "alignment_intermediate_size")
    if inner % 2:
        parts.fields.problem("alignment_intermediate_size", "is not allowed; expected an even number: half of it gates")
    project = GatedProjector(up="linear_1", down="linear_2", inner=inner // 2, out=parts.hidden)
    last = Section(
        layers=(project,), hidden=trunk.width * side**2, rows=Rows(shared=side**2),
        prefix="model.multi_modal_projector.",
    )  # fmt: skip
    cut = Tiles(tile=trunk.image, patch=trunk.patch)
    return (Encoder(name="vision", cut=cut, sections=(*trunk.sections, last)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeOrTiles(Cut):
    """Images above `tolerance` times the native bounds are tiled, others are not (`image_processing_lfm2_vl.py`)."""

    native: Native
    tiles: Tiles
    tolerance: float

    def pieces(self, media: Media) -> Pieces:
        """Pieces of all images."""
        large = math.prod(media.image_size) > self.tolerance * self.native.most
        return self.tiles.pieces(media) if large else self.native.pieces(media)


def lfm2(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP 2 at native resolution, a norm and two linear layers on concatenated patches (arXiv 2511.23404)."""
    vision = parts.nested("vision_config", "siglip2_vision_model")
    unused(parts.fields, "encoder_patch_size", "use_image_special_tokens")
    width, patch, module = size(vision, "hidden_size"), patch_side(vision), "model.vision_tower"
    side = size(parts.fields, "downsample_factor", default=2)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        linear=True, positions=size(vision, "num_patches"), position_module="embeddings.position_embedding",
    )  # fmt: skip
    head = (pooling_head(vision, width, module),) if vision.flag("vision_use_head", True) else ()
    bias, inner = parts.fields.flag("projector_bias", True), size(parts.fields, "projector_hidden_size", default=2560)
    normed = parts.fields.flag("projector_use_layernorm", True)
    project: Layer = Projector(
        norm=NormLayer(name="layer_norm", kind="layer") if normed else None,
        linears=(Linear(module="linear_1", n=inner, bias=bias), Linear(module="linear_2", n=parts.hidden, bias=bias)),
    )
    rows = Rows(shared=side**2)
    cut = _lfm2_cut(parts.fields, patch, side)
    sections = (
        Section(layers=(embed,), hidden=width, prefix=f"{module}."),
        *siglip_layers(vision, module),
        *head,
        Section(layers=(project,), hidden=width * side**2, rows=rows, prefix="model.multi_modal_projector."),
    )
    return (Encoder(name="vision", cut=cut, sections=sections),)


def _lfm2_cut(fields: Fields, patch: int, side: int) -> Cut:
    edge, tile = (patch * side) ** 2, size(fields, "tile_size", default=16 * patch * side)
    least, most = size(fields, "min_image_tokens", default=64), size(fields, "max_image_tokens", default=256)
    tiles = Tiles(
        tile=(tile, tile), patch=patch, least=size(fields, "min_tiles", default=2),
        most=size(fields, "max_tiles", default=10), whole=fields.flag("use_thumbnail", True),
    )  # fmt: skip
    tolerance = fields.number("max_pixels_tolerance", 2.0)
    native = Native(patch=patch, merge=side, least=least * edge, most=most * edge)
    split = fields.flag("do_image_splitting", True)
    return NativeOrTiles(native=native, tiles=tiles, tolerance=tolerance) if split else native


WHOLES: dict[str, Whole] = {
    "idefics3": Whole(encoders=idefics3, prefix="model.text_model."),
    "smolvlm": Whole(encoders=idefics3, prefix="model.text_model."),
    "cohere2_vision": Whole(encoders=cohere2),
    "lfm2_vl": Whole(encoders=lfm2),
}
"""Readers by `model_type` of the whole model."""
