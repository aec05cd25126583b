"""DoRA: the magnitude of each output is trained separately, and the norm of W + s B A is computed in every forward
pass. arXiv 2402.09353.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.graph import Step, Value
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Embedding, Gemm, Sharding
from graphsim.ops.lora_variants import DoraNorm, DoraScale
from graphsim.units import Num


class _WeightDecomposed(Variant):
    __slots__ = ()

    def behind(self, site: Site) -> Iterator[Step]:
        """The norm of the weights, and the scaling by it."""
        name, op, a, joined = site.name, site.op, site.a, site.joined
        norm = DoraNorm(
            role=f"{op.role}.dora_norm", n=op.n, k=op.k, rank=a.n * np.minimum(a.m, 1.0), split=op.split,
            units=op.units, weights=op.weights, factors=a.weights, cut_elems=_cut_elems(site),
            whole=op.split is Sharding.COLUMN and site.b.split is not Sharding.COLUMN,
            activations=op.activations, layer=op.layer,
        )  # fmt: skip
        yield f"{name}.dora_norm", norm, []
        scale = DoraScale(
            role=f"{op.role}.dora_scale", m=joined.m, n=joined.n, rows=joined.rows, units=joined.units,
            parts=joined.parts, factors=a.weights, activations=op.activations, layer=op.layer,
        )  # fmt: skip
        yield f"{name}.dora_scale", scale, [Value(f"{name}.lora_add"), Value(f"{name}.dora_norm")]

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The factors and the magnitudes."""
        return {"lora_A": (rank, op.k), "lora_B": (op.n, rank), "lora_magnitude_vector": (op.n,)}

    def table_tensors(self, op: Embedding, rank: Num, lora: Described) -> Shapes | None:
        """The same for rows."""
        plain = {"lora_embedding_A": (rank, op.entries), "lora_embedding_B": (op.width, rank)}
        return plain | {"lora_magnitude_vector": (op.width,)}


def _cut_elems(site: Site) -> Num:
    """Elements of the factor that is sharded differently from the base: A over ranks, or B over a row base's
    outputs.
    """
    if site.a.split is Sharding.COLUMN:
        return site.a.n * site.a.k
    row_b = site.op.split is Sharding.ROW and site.b.split is Sharding.COLUMN
    return site.b.n * site.b.k if row_b else 0.0


VARIANT = _WeightDecomposed(
    name="dora",
    merge_passes=4.0,
    bias=False,
    peft_flag="use_dora",
    pattern_field="rank_pattern",
    table="factors",
    simpler="plain LoRA instead of DoRA",
)
