"""VeRA: random factors that all modules share and that are not trained, with a trained vector after each.

arXiv 2310.11454, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import numpy as np

from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import ExpertGemm, Gemm, LoraA, LoraB, Op
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_expert_variants import ExpertVectorScale
from graphsim.ops.lora_variants import VectorScale
from graphsim.units import Num


class _VectorBased(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """A, the vector d, B, the vector b."""
        a, b = (replace(factor, shared=True, frozen=True) for factor in (site.a, site.b))
        live = np.minimum(a.n, 1.0)  # no adapter without a rank
        yield "lora_a", a
        yield "lora_d", _vector(site.op, "d", a, live)
        yield "lora_b", b
        yield "lora_scale", _vector(site.op, "scale", b, live)

    def shared(self, sizes: Sequence[tuple[Num, Num]], lora: Described) -> Iterator[tuple[str, Op]]:
        """Both factors, for the largest inputs and outputs among the modules; not trained."""
        largest = sum(np.max([float(size[i]) for size in sizes]) for i in range(2))
        elems = lora.rank * largest
        stored = elems * FORMATS[lora.lora_dtype].bytes
        yield (
            "lora_projections",
            HeldWeights(role="lora_projections", elems=elems, stored_bytes=stored, frozen=True, factors=True),
        )

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The two vectors."""
        return {"vera_lambda_b": (op.n,), "vera_lambda_d": (rank,)}


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
    parts=("vera_lambda_b", "vera_lambda_d"),
    peft_type="VERA",
    rank_default=256,
    scaled=False,  # PEFT 0.21, tuners/vera/layer.py: the trained vectors scale; there is no alpha
)
