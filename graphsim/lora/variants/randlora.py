"""RandLoRA: as many random bases as make up the full rank, scaled by trained vectors. arXiv 2502.00987.

PEFT 0.21 (`tuners/randlora/layer.py`) scales the smaller bases in every forward pass, and runs the two GEMMs at a
rank that is the smaller side of the linear, rounded up to whole bases. All modules share the bases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from graphsim.lora.made import built, folded
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.formats import FORMATS
from graphsim.units import Num


class _RandomBases(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The scaled bases, and the two GEMMs."""
        op, rank = site.op, site.a.n
        least = np.minimum(op.n, op.k)
        bases = bases_of(least, rank)
        scaled = rank * bases * least
        yield "lora_bases", built(
            site, "lora_bases", held=bases * (rank + least) * np.minimum(rank, 1.0), elems=scaled, launches=2.0,
            vector_flops=2.0 * scaled, read_elems=scaled, write_elems=2.0 * scaled,
        )  # fmt: skip
        yield "lora_a", replace(site.a, n=rank * bases, shared=True, frozen=True)
        yield "lora_b", replace(site.b, k=rank * bases, shared=True, frozen=True)

    def shared(self, sizes: Sequence[tuple[Num, Num]], lora: Described) -> Iterator[tuple[str, Op]]:
        """The bases of the largest inputs and outputs among the modules, none of them trained."""
        inputs, outputs = (np.max([float(size[i]) for size in sizes]) for i in range(2))
        least, most = np.minimum(inputs, outputs), np.maximum(inputs, outputs)
        elems = lora.rank * (least + most * bases_of(least, lora.rank))
        yield (
            "lora_bases",
            HeldWeights(
                role="lora_bases", elems=elems, frozen=True, stored_bytes=elems * FORMATS[lora.lora_dtype].bytes
            ),
        )

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The GEMM of the bases, and the sum."""
        rank = site.a.n * bases_of(np.minimum(site.op.n, site.op.k), site.a.n)
        return folded(merge, self.chain(site), 2.0 * site.op.n * site.op.k * rank)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The two vectors of each base."""
        least = np.minimum(op.n, op.k)
        bases = bases_of(least, rank)
        return {"randlora_lambda": (rank, bases), "randlora_gamma": (bases, least)}


def bases_of(least: Num, rank: Num) -> Num:
    """How many bases of a rank make up the smaller side of a linear."""
    return np.ceil(least / np.maximum(rank, 1.0))


VARIANT = _RandomBases(
    name="randlora", peft_type="RANDLORA", rank_default=32, bias=False, experts=False,
    parts=("randlora_lambda", "randlora_gamma"),
)  # fmt: skip
