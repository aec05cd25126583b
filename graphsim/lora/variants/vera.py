"""VeRA: random factors that all modules share and training leaves alone, and a trained vector behind each.

arXiv 2310.11454, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from graphsim.lora.variant import Site, Variant
from graphsim.ops import ExpertGemm, Gemm, LoraA, LoraB, Op
from graphsim.ops.lora_expert_variants import ExpertVectorScale
from graphsim.ops.lora_variants import VectorScale
from graphsim.units import Num


class _VectorBased(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """A, the vector d, B, the vector b."""
        a, b = (replace(factor, shared=True, frozen=True) for factor in (site.a, site.b))
        live = np.minimum(a.n, 1.0)  # without a rank there is no adapter
        yield "lora_a", a
        yield "lora_d", _vector(site.op, "d", a, live)
        yield "lora_b", b
        yield "lora_scale", _vector(site.op, "scale", b, live)


def _vector(op: Gemm, part: str, factor: LoraA | LoraB, live: Num) -> VectorScale:
    vector = VectorScale(
        role=f"{op.role}.lora_{part}", elems=factor.m * factor.n * live, width=factor.n * live, units=factor.units,
        activations=op.activations, layer=op.layer,
    )  # fmt: skip
    if not isinstance(op, ExpertGemm):
        return vector
    given = {f.name: getattr(vector, f.name) for f in fields(vector)}
    return ExpertVectorScale(**given, routing=op, outputs=isinstance(factor, LoraB))


VARIANT = _VectorBased(
    name="vera",
    unmerged="merging its shared factors is not simulated",
    scaled=False,  # PEFT 0.21, tuners/vera/layer.py: the trained vectors scale, there is no alpha
)
