"""LoHa: the element-wise product of two factor products, of the linear's dimensions. arXiv 2108.06098.

PEFT 0.21 (`tuners/loha/layer.py`) computes both products, multiplies and scales them in every forward pass, and runs a
GEMM of the linear's dimensions with the result.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.lora.made import built, folded, product
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.units import Num


class _Hadamard(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The weights computed from the four factors, and the GEMM with them."""
        op, rank = site.op, site.a.n
        weight = op.n * op.k
        yield "lora_delta", built(
            site, "lora_delta", held=2.0 * rank * (op.n + op.k), elems=weight, launches=4.0,
            flops=4.0 * rank * weight, vector_flops=2.0 * weight, read_elems=3.0 * weight, write_elems=4.0 * weight,
        )  # fmt: skip
        yield "lora_product", product(site, "lora_product")

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The computed weights, and the sum."""
        return folded(merge, self.chain(site))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """Two pairs of factors."""
        pairs: Shapes = {f"hada_w{i}_a": (op.n, rank) for i in (1, 2)}
        return pairs | {f"hada_w{i}_b": (rank, op.k) for i in (1, 2)}


VARIANT = _Hadamard(
    merges_few_bits=False,
    name="loha", peft_type="LOHA", pattern_field="rank_pattern", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
)  # fmt: skip
