"""QA-LoRA: groups of inputs are averaged before a smaller A, so that merging only moves the base's zero points.

arXiv 2309.14717, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import ExpertGemm, Gemm, Op
from graphsim.ops.lora_expert_variants import ExpertGroupPool
from graphsim.ops.lora_variants import GroupPool
from graphsim.units import Num


class _QuantisationAware(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The averages, A of fewer inputs, B."""
        op, a, groups = site.op, site.a, site.lora.group_size
        rows = a.m * np.minimum(a.n, 1.0)  # no adapter without a rank
        pool = GroupPool(
            role=f"{op.role}.lora_pool", m=rows, k=a.k, groups=groups, activations=op.activations, layer=op.layer
        )
        if isinstance(op, ExpertGemm):
            pool = ExpertGroupPool(**{f.name: getattr(pool, f.name) for f in fields(pool)}, routing=op)
        yield "lora_pool", pool
        yield "lora_a", replace(a, k=a.k / groups)
        yield "lora_b", site.b

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """A of as many inputs as there are groups."""
        return {"lora_A": (rank, op.k / lora.group_size), "lora_B": (op.n, rank)}


VARIANT = _QuantisationAware(
    name="qa-lora", exact_merge=True, peft_flag="use_qalora", pattern_field="rank_pattern", table="factors"
)
