"""GraniteDocling: SigLIP on tiles, with concatenated patches on a coarse path, and on a fine one for dense pages."""

from __future__ import annotations

from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.tiles import Tiles
from graphsim.models.huggingface.towers.trunks import siglip
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.base import Projection
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.projector import Linear, Projector

_CONNECTOR = "model.vision_model.connector."
TILES, ACROSS = 32, 16
"""Maximum number of tiles of a page, and along a side (transformers 5.24, `image_processing_granite_docling.py`)."""


def granite_docling(parts: Parts) -> tuple[Encoder, ...]:
    """Pages take the coarse path; rows of some layers are added to the language model's first layers (DeepStack)."""
    if parts.fields.raw("density_router_hidden_size") is not None:
        parts.fields.problem("density_router_hidden_size", "is not supported; expected null")
    unused(parts.fields, "density_router_threshold", "density_router_loss_weight")
    vision = parts.nested("vision_config", "granite_docling_vision")
    headless = vision.child({**vision.data, "vision_use_head": False}, vision.path, lenient=True)
    trunk, out, merge = (
        siglip(headless, "model.vision_model"),
        size(vision, "out_hidden_size"),
        size(vision, "scale_factor"),
    )
    if out != parts.hidden:
        vision.problem("out_hidden_size", f"is not the language model's hidden_size = {parts.hidden}")
    deeper = len(vision.sequence("deepstack_visual_indexes") or range(3))
    width, wide, rows = trunk.width, trunk.width * merge**2, Rows(shared=merge**2)
    beside = tuple(
        Section(
            layers=(_merger(out),), hidden=wide, rows=rows, beside=True,
            prefix=f"{_CONNECTOR}coarse.deepstack_mergers.{i}.",
        )
        for i in range(deeper)
    )  # fmt: skip
    idle: tuple[Section, ...] = ()
    if vision.flag("use_fine_route", True):
        idle = (Section(layers=(_fine(width * (merge // 2) ** 2, out, deeper),), hidden=out, rows=rows, idle=True),)
    first, last = (
        Projector(linears=(Linear(module=name, n=out, bias=False),)) for name in ("coarse.projection", "mlp_fc2")
    )
    middle, behind = (NormLayer(name=name, kind="layer") for name in ("ln_mid", "ln_out"))
    sections = (
        *trunk.sections,
        *beside,
        Section(layers=(NormLayer(name="ln_in", kind="layer"),), hidden=width, prefix=_CONNECTOR),
        Section(layers=(first,), hidden=wide, rows=rows, prefix=_CONNECTOR),
        Section(layers=(middle, last, behind), hidden=out, rows=rows, prefix=_CONNECTOR),
        *idle,
    )
    cut = Tiles(tile=trunk.image, patch=trunk.patch, most=TILES, across=ACROSS)
    return (Encoder(name="vision", cut=cut, sections=sections),)


def _merger(out: int) -> Projector:
    linears = (Linear(module="linear_1", n=out), Linear(module="linear_2", n=out))
    return Projector(norm=NormLayer(name="layer_norm", kind="layer"), linears=linears)


def _fine(wide: int, out: int, deeper: int) -> Idle:
    """The fine path, which has separate weights."""
    path = f"{_CONNECTOR}fine."
    linears = [Projection(name=f"{path}projection", n=out, k=wide, quantised=False)]
    for i in range(deeper):
        for name, k in (("linear_1", wide), ("linear_2", out)):
            module = f"{path}deepstack_mergers.{i}.{name}"
            linears.append(Projection(name=module, n=out, k=k, bias=True, quantised=False))
    norms = (Kept(name=f"{path}deepstack_mergers.{i}.layer_norm", entries=2 * wide) for i in range(deeper))
    return Idle(linears=tuple(linears), kept=tuple(norms))


WHOLES: dict[str, Whole] = {"granite_docling": Whole(encoders=granite_docling, prefix="model.text_model.")}
"""Readers by `model_type` of the whole model."""
