"""LoKr: the Kronecker product of two small matrices, the larger of which may be a GEMM itself. arXiv 2309.14859.

PEFT 0.21 (`tuners/lokr/layer.py`) computes it in every forward pass, and runs a GEMM of the linear's dimensions with
it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.lora.made import built, folded, product
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.units import Num


class _Kronecker(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The weights computed from the factors, and the GEMM with them."""
        rank, weight = site.a.n, site.op.n * site.op.k
        held, flops, products = self._factors(site)
        yield "lora_delta", built(
            site, "lora_delta", held=held * np.minimum(rank, 1.0), elems=weight, launches=3.0, flops=flops,
            vector_flops=2.0 * weight, read_elems=weight + products, write_elems=2.0 * weight + products,
        )  # fmt: skip
        yield "lora_product", product(site, "lora_product")

    def _factors(self, site: Site) -> tuple[Num, Num, Num]:
        """Parameters, flops of the GEMMs between them, and elements of their results."""
        factor, both = site.lora.options["decompose_factor"], site.lora.options["decompose_both"]
        (a, b), (c, d) = (factorised(int(float(size)), factor) for size in (site.op.n, site.op.k))
        rank = site.a.n
        small = np.less(rank, max(a, c) / 2.0) * float(both)
        large = np.less(rank, max(b, d) / 2.0) * 1.0
        held = small * rank * (a + c) + (1.0 - small) * a * c + large * rank * (b + d) + (1.0 - large) * b * d
        products = small * a * c + large * b * d
        return held, 2.0 * rank * products, products

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The computed weights, and the sum."""
        return folded(merge, self.chain(site))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """Each matrix, or its two factors."""
        (a, b), (c, d) = (factorised(int(float(size)), lora.options["decompose_factor"]) for size in (op.n, op.k))
        cut = {"w1": bool(lora.options["decompose_both"] and rank < max(a, c) / 2), "w2": bool(rank < max(b, d) / 2)}
        found: Shapes = {}
        for name, (out, into) in {"w1": (a, c), "w2": (b, d)}.items():
            whole: Shapes = {f"lokr_{name}": (out, into)}
            found |= {f"lokr_{name}_a": (out, rank), f"lokr_{name}_b": (rank, into)} if cut[name] else whole
        return found


def factorised(size: int, factor: int) -> tuple[int, int]:
    """Two factors of a size, the smaller one first: the given factor if it divides, else the closest pair up to it.

    As in PEFT's `factorization`: -1 means the pair closest to the square root.
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = size if factor == -1 else factor
    found = (1, size)
    for small in range(2, size + 1):
        if found[0] >= found[1] or small > most:
            break
        if size % small == 0:
            if small + size // small > sum(found):
                break
            found = (small, size // small)
    return min(found), max(found)


VARIANT = _Kronecker(
    merges_few_bits=False,
    name="lokr", peft_type="LOKR", pattern_field="rank_pattern", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    options=(Option(name="decompose_both", default=False), Option(name="decompose_factor", default=-1, least=-1)),
)  # fmt: skip
