"""MiSS: one matrix of rank rows, which all blocks of the linear's inputs share. arXiv 2409.15371.

PEFT 0.21 (`tuners/miss/layer.py`) sums the blocks of the input and multiplies them once. `mini` repeats a narrow matrix
first; `bat` rebuilds W in every forward pass, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from graphsim.lora.made import adapted_rows, built, folded, live, require_at_most, require_divisor, rewritten
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op, Sharding
from graphsim.ops.lora_variants import GroupPool
from graphsim.ops.overrides import Remade
from graphsim.units import Num


class _Shared(Variant):
    __slots__ = ()

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The linear's rebuilt weights, for `bat` only."""
        if self._kind(site) != "bat":
            return
        op, rank = site.op, site.a.n
        require_divisor(site, "rank", rank)
        weight = op.n * op.k
        yield "lora_weights", rewritten(
            site, held=op.n * rank, launches=6.0, flops=2.0 * weight * rank,
            vector_flops=2.0 * weight, read_elems=6.0 * weight, write_elems=6.0 * weight,
        )  # fmt: skip

    def remade(self, site: Site) -> Remade:
        """For `bat`, the sum of W and the block's GEMMs, in the wider format of the two."""
        return "factors" if self._kind(site) == "bat" else ""

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The sum over blocks, and the GEMM."""
        kind, op, rank = self._kind(site), site.op, site.a.n
        if kind == "bat":
            return
        require_at_most(site, "rank", rank, op.k, "inputs")
        yield "lora_pool", GroupPool(
            role=f"{op.role}.lora_pool", m=adapted_rows(site), k=op.k, groups=op.k / np.maximum(rank, 1.0),
            activations=op.activations, layer=op.layer,
        )  # fmt: skip
        narrow = site.lora.options["mini_r"]
        if kind == "mini":
            require_divisor(site, "options.mini_r", narrow, inputs=False)
            wide = rank * op.n
            yield (
                "lora_repeated",
                built(
                    site,
                    "lora_repeated",
                    held=rank * narrow,
                    elems=wide,
                    launches=1.0,
                    read_elems=wide,
                    write_elems=wide,
                ),
            )
        own = kind != "mini"
        split = Sharding.ROW if op.split is Sharding.ROW else site.b.split
        yield "lora_b", replace(site.b, split=split, shared=not own, frozen=not own)

    def _kind(self, site: Site) -> str:
        return str(site.lora.options["init_weights"])

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """One matrix is added to every block of W, or W is rebuilt."""
        if self._kind(site) == "bat":
            return folded(merge, self.ahead(site))
        narrow = site.lora.options["mini_r"] if self._kind(site) == "mini" else site.op.n
        made = built(
            site, "lora_b", held=site.a.n * narrow * live(site), elems=0.0, launches=1.0,
            vector_flops=site.op.n * site.op.k,
        )  # fmt: skip
        return folded(merge, iter([("lora_b", made)]))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The matrix."""
        kind = lora.options["init_weights"]
        if kind == "bat":
            return {"miss_block": (op.n / rank, rank, rank)}
        return {"miss_block": (rank, lora.options["mini_r"] if kind == "mini" else op.n)}


VARIANT = _Shared(
    name="miss", peft_type="MISS", rank_default=64, scaled=False, bias=False, experts=False, conv1d=False,
    parts=("miss_block",),
    options=(
        Option(name="init_weights", default="True", choices=("True", "False", "bat", "mini")),
        Option(name="mini_r", default=1),
    ),
)  # fmt: skip
