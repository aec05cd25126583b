"""LLaVA and its relatives: a vision transformer of a known kind, and an MLP to the language model's width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Longest, Nothing, Resized
from graphsim.models.huggingface.towers.tiles import Canvas
from graphsim.models.huggingface.towers.trunks import Trunk, trunk_of
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Cut, Encoder, Rows, Section
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Pooling, Take, Weights
from graphsim.models.layers.projector import Linear, Projector


def llava(parts: Parts) -> tuple[Encoder, ...]:
    """Patches of the penultimate layer, without the class token, and two linear layers (arXiv 2304.08485)."""
    return (_tower(parts, "vision_config", "vision_tower"),)


def _tower(parts: Parts, key: str, module: str, further: tuple[Layer, ...] = ()) -> Encoder:
    trunk = trunk_of(parts.nested(key, "clip_vision_model"), f"model.{module}")
    unused(parts.fields, "image_seq_length", "video_seq_length")
    features = parts.fields.raw("vision_feature_layer", -2)
    several = 1 if type(features) is int else len(_listed(parts.fields, ("vision_feature_layer",), features))
    cut: Cut = Resized(image=trunk.image, patch=trunk.patch)
    if parts.nested(key, "clip_vision_model").data["model_type"] == "pixtral":
        cut = Longest(patch=trunk.patch, longest=trunk.image[0])
    bias = parts.fields.flag("multimodal_projector_bias", True)
    width = trunk.width * several
    whole = parts.fields.text("vision_feature_select_strategy", "default") == "full"
    rows = trunk.rows if whole else Rows()
    taken = (Take(),) if several > 1 or rows != trunk.rows else ()
    linears = (
        Linear(module="linear_1", n=parts.hidden, bias=bias),
        Linear(module="linear_2", n=parts.hidden, bias=bias),
    )
    return Encoder(
        name="vision",
        cut=cut,
        sections=(
            *trunk.sections,
            Section(
                layers=(*taken, Projector(linears=linears), *further), hidden=width, rows=rows,
                prefix="model.multi_modal_projector.",
            ),
        ),
    )  # fmt: skip


def llava_next(parts: Parts) -> tuple[Encoder, ...]:
    """LLaVA with a learned separator between the rows of an image."""
    found = _tower(parts, "vision_config", "vision_tower")
    unused(parts.fields, "vision_aspect_ratio", "image_seq_length", "spatial_pool_mode", "spatial_pool_stride")
    if isinstance(found.cut, Resized):
        canvases = tuple(_pair(entry) for entry in parts.fields.sequence("image_grid_pinpoints"))
        if not all(canvases):
            parts.fields.problem("image_grid_pinpoints", "is not allowed; expected a list of heights and widths")
        cut = Canvas(tile=found.cut.image, patch=found.cut.patch, canvases=canvases or _CANVASES)
        found = replace(found, cut=cut)
    return (with_weights(found, parts.hidden),)


def _pair(entry: object) -> tuple[int, int]:
    if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(n, int) and n > 0 for n in entry):
        return int(entry[0]), int(entry[1])
    return ()  # type: ignore[return-value]


_CANVASES = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""Default heights and widths of canvases, pixels (transformers 5.24, `configuration_llava_next.py`)."""


def with_weights(encoder: Encoder, weights: int) -> Encoder:
    """The tower with an additional learned separator.

    weights: number of elements of the separator
    """
    row = Section(
        layers=(Weights(names=("image_newline",), width=weights),),
        hidden=weights,
        rows=encoder.sections[-1].rows,
        prefix="model.",
    )
    return replace(encoder, sections=(*encoder.sections, row))


def video_llava(parts: Parts) -> tuple[Encoder, ...]:
    """A tower for images and one of the same kind for videos; they share the projector."""
    images = _tower(parts, "vision_config", "image_tower")
    trunk = trunk_of(parts.nested("vision_config", "clip_vision_model"), "model.video_tower")
    return images, Encoder(name="video", cut=Nothing(), sections=trunk.sections)


def vipllava(parts: Parts) -> tuple[Encoder, ...]:
    """Rows of several layers concatenated, after a norm."""
    trunk = trunk_of(parts.nested("vision_config", "clip_vision_model"), "model.vision_tower")
    keys = ("vision_feature_layers", "vision_feature_layer")
    taken = next((parts.fields.raw(key) for key in keys if key in parts.fields), (-2, -5, -8, -11, 6))
    width = trunk.width * (1 if isinstance(taken, int) else len(_listed(parts.fields, keys, taken)))
    unused(parts.fields, "image_seq_length", *keys)
    project = Projector(
        norm=NormLayer(name="projector_layernorm", kind="layer"),
        linears=(Linear(module="linear_1", n=parts.hidden), Linear(module="linear_2", n=parts.hidden)),
    )
    last = Section(layers=(Take(), project), hidden=width, prefix="model.multi_modal_projector.")
    return (Encoder(name="vision", cut=_fixed(trunk), sections=(*trunk.sections, last)),)


def _listed(fields: Fields, keys: tuple[str, ...], taken: object) -> Sequence[object]:
    """The layers whose rows are used, as a list."""
    if isinstance(taken, list | tuple) and taken and all(type(entry) is int for entry in taken):
        return taken
    key = next(key for key in keys if key in fields)
    fields.problem(key, "is not allowed; expected a number of a layer, or a list of these")
    return (-1,)


def gemma3(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP, rows pooled to `mm_tokens_per_image`, a norm and a parameter matrix (arXiv 2503.19786, section 2)."""
    trunk = trunk_of(parts.nested("vision_config", "siglip_vision_model"), "model.vision_tower")
    patches = (trunk.image[0] // trunk.patch) * (trunk.image[1] // trunk.patch)
    tokens = size(parts.fields, "mm_tokens_per_image", default=256)
    project = Projector(
        norm=NormLayer(name="mm_soft_emb_norm"),
        linears=(Linear(module="mm_input_projection_weight", n=parts.hidden, bias=False, matrix=True),),
    )
    pooled = Section(
        layers=(Pooling(shared=max(patches // tokens, 1)), project), hidden=trunk.width,
        rows=Rows(fixed=tokens), prefix="model.multi_modal_projector.",
    )  # fmt: skip
    return (Encoder(name="vision", cut=_fixed(trunk), sections=(*trunk.sections, pooled)),)


def paligemma(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP and one linear layer (arXiv 2407.07726)."""
    trunk = trunk_of(parts.nested("vision_config", "siglip_vision_model"), "model.vision_tower")
    unused(parts.fields, "use_bidirectional_attention", "hidden_size", "vocab_size", "num_image_tokens")
    unused(parts.fields.mapping("vision_config", lenient=True), "projection_dim")  # always the whole model's
    n = size(parts.fields, "projection_dim", default=2048)
    last = Section(
        layers=(Projector(linears=(Linear(module="linear", n=n),)),), hidden=trunk.width,
        prefix="model.multi_modal_projector.",
    )  # fmt: skip
    return (Encoder(name="vision", cut=_fixed(trunk), sections=(*trunk.sections, last)),)


def mistral3(parts: Parts) -> tuple[Encoder, ...]:
    """Pixtral; a norm, a linear layer that merges neighbouring patches, two more (transformers 5.24, `mistral3`)."""
    return (_merged(parts, "model.vision_tower", "model.multi_modal_projector."),)


def lighton_ocr(parts: Parts) -> tuple[Encoder, ...]:
    """Mistral 3's tower with other module names."""
    return (_merged(parts, "model.vision_encoder", "model.vision_projection."),)


def _merged(parts: Parts, module: str, projector: str) -> Encoder:
    trunk = trunk_of(parts.nested("vision_config", "pixtral"), module)
    if not isinstance(parts.fields.raw("vision_feature_layer", -1), int):
        parts.fields.problem("vision_feature_layer", "is not simulated; expected a number of a layer")
    merge = size(parts.fields, "spatial_merge_size", default=2)
    bias = parts.fields.flag("multimodal_projector_bias", False)
    linears = (
        Linear(module="patch_merger.merging_layer", n=trunk.width, bias=False),
        Linear(module="linear_1", n=parts.hidden, bias=bias),
        Linear(module="linear_2", n=parts.hidden, bias=bias),
    )
    rows = Rows(shared=merge**2)
    return Encoder(
        name="vision",
        cut=Longest(patch=trunk.patch, longest=trunk.image[0], merge=merge),
        sections=(
            *trunk.sections,
            Section(layers=(NormLayer(name="norm"),), hidden=trunk.width, prefix=projector),
            Section(
                layers=(Projector(linears=linears[:1]),), hidden=trunk.width * merge**2, rows=rows, prefix=projector
            ),
            Section(layers=(Projector(linears=linears[1:]),), hidden=trunk.width, rows=rows, prefix=projector),
        ),
    )


def _fixed(trunk: Trunk) -> Resized:
    return Resized(image=trunk.image, patch=trunk.patch)


WHOLES: dict[str, Whole] = {
    "llava": Whole(encoders=llava, either_ties=True),
    "llava_next": Whole(encoders=llava_next),
    "llava_next_video": Whole(encoders=llava_next, either_ties=True),
    "llava_onevision": Whole(encoders=llava_next, either_ties=True),
    "video_llava": Whole(encoders=video_llava),
    "vipllava": Whole(encoders=vipllava),
    "gemma3": Whole(encoders=gemma3),
    "shieldgemma2": Whole(encoders=gemma3, either_ties=True),
    "paligemma": Whole(encoders=paligemma),
    "mistral3": Whole(encoders=mistral3),
    "lighton_ocr": Whole(encoders=lighton_ocr),
}
"""Readers by `model_type` of the whole model."""
