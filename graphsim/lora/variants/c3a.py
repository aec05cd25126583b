"""C3A: a change of W in circulant blocks, applied through Fourier transforms. arXiv 2407.19342.

PEFT 0.21 (`tuners/c3a/layer.py`). The rank is the size of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.lora.made import built, folded, product, require_divisor
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.adapter_values import CirculantGemm
from graphsim.units import Num


class _Circulant(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The product with circulant blocks."""
        require_divisor(site, "rank", site.a.n)
        blocks = np.maximum(site.a.n, 1.0)
        yield (
            "lora_circulant",
            product(site, "lora_circulant", CirculantGemm, blocks=blocks, shared=False, frozen=False),
        )

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The blocks written out through transforms of an identity, and the sum."""
        op, block = site.op, np.maximum(site.a.n, 1.0)
        weight = op.n * op.k
        made = built(
            site, "lora_circulant", held=weight / block, elems=weight, launches=5.0, flops=8.0 * weight * op.k / block,
            vector_flops=10.0 * weight * np.log2(block), read_elems=8.0 * weight, write_elems=8.0 * weight,
        )  # fmt: skip
        return folded(merge, iter([("lora_circulant", made)]))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """A row of each block."""
        return {"c3a_kernel": (op.n / rank, op.k / rank, rank)}


VARIANT = _Circulant(
    merges_few_bits=False,
    name="c3a", peft_type="C3A", rank_field="block_size", rank_default=256, pattern_field="block_size_pattern",
    parts=("c3a_kernel",),
    scaled=False, bias=False, experts=False, conv1d=False,
)  # fmt: skip
