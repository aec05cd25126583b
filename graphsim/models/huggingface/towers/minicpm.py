"""MiniCPM-V: slices of an image, rows merged within the tower and again after it (arXiv 2408.01800)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.trunks import attention_of, sides, siglip
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.media import Media

SLICES, SIDE = 9, 448
"""Maximum slices of an image, and the side in pixels of a square of about their area (section 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices(Cut):
    """As many slices as cover the image's area, and a view of the whole if there are several.

    side: number of patches along a side of each
    """

    side: int

    def pieces(self, media: Media) -> Pieces:
        """Pieces of all images."""
        slices = min(math.ceil(media.height * media.width / SIDE**2), SLICES)
        count = slices + 1 if slices > 1 else 1
        return Pieces(count=float(media.images * count), height=float(self.side), width=float(self.side))


def minicpmv(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP; 2 x 2 rows are merged after one of its layers, and again after the last."""
    vision, module = parts.nested("vision_config", f"{parts.fields.raw('model_type')}_vision"), "model.vision_tower"
    unused(parts.fields, "insert_layer_id", "image_size", "patch_size", "drop_vision_last_layer")
    for owner, key in ((vision, "window_kernel_size"), (parts.fields, "merge_kernel_size")):
        if key in owner and sides(owner, key) != (2, 2):
            owner.problem(key, "is not allowed; expected [2, 2]")
    headless = vision.child({**vision.data, "vision_use_head": False}, vision.path, lenient=True)
    trunk = siglip(headless, module)
    (embed, layers, norm), first = trunk.sections, size(vision, "insert_layer_id", default=6, least=0) + 1
    whole = parts.fields.text("downsample_mode", "16x", ("4x", "16x")) == "4x"
    times = size(parts.fields, "merger_times", default=1, most=4)
    rows = Rows() if whole else Rows(shared=4)
    ahead = replace(layers, layers=layers.layers[:first])
    behind = replace(layers, layers=layers.layers[first:], first=first, rows=rows)
    merger = tuple(replace(section, idle=whole) for section in _merger(vision, f"{module}.vit_merger."))
    sections = (embed, ahead, *merger, behind, replace(norm, rows=rows), *_end(parts, trunk.width, rows.shared, times))
    side = SIDE // trunk.patch // 4 * 4
    kept = tuple(section for section in sections if section.layers)
    return (Encoder(name="vision", cut=Slices(side=side), sections=kept),)


def _merger(vision: Fields, module: str) -> tuple[Section, Section]:
    """Attention within windows of 2 x 2 rows, which a plain MLP then merges."""
    width, inner = size(vision, "hidden_size"), 4 * size(vision, "intermediate_size")
    branch = Branch(layer=attention_of(vision, side=2))
    attention = Residual(name="attn_residual", norm=NormLayer(name="layer_norm1", kind="layer"), branches=(branch,))
    linears = (Linear(module="linear_1", n=inner), Linear(module="linear_2", n=width))
    merge = Projector(norm=NormLayer(name="pre_norm", kind="layer"), linears=linears)
    return (
        Section(layers=(Block(parts=(attention,)),), hidden=width, prefix=module),
        Section(layers=(merge,), hidden=4 * width, rows=Rows(shared=4), prefix=module),
    )


def _end(parts: Parts, width: int, shared: int, times: int) -> list[Section]:
    """Mergers of 2 x 2 rows, the last of which is as wide as the language model."""
    found = []
    for i in range(times):
        shared *= 4
        out = parts.hidden if i == times - 1 else width
        linears = (Linear(module="linear_1", n=4 * width), Linear(module="linear_2", n=out))
        merge = Projector(norm=NormLayer(name="pre_norm", kind="layer"), linears=linears)
        found.append(
            Section(layers=(merge,), hidden=4 * width, rows=Rows(shared=shared), prefix=f"model.merger.mlp.{i}.")
        )
    return found


WHOLES: dict[str, Whole] = {
    "minicpmv4_6": Whole(encoders=minicpmv),
    "minicpmv4_7": Whole(encoders=minicpmv),
    "minicpm_ocr": Whole(encoders=minicpmv),
}
"""Readers by `model_type` of the whole model."""
