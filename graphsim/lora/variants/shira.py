"""SHiRA: as many entries of W as LoRA has parameters are trained. arXiv 2406.13175.

PEFT 0.21 (`tuners/shira/layer.py`) copies W and adds the entries to the copy in every forward pass. It also stores the
row and column of each entry in 32 bits, which are not trained.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.lora.made import folded, require_at_most, rewritten
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.overrides import Remade
from graphsim.units import Num


class _Sparse(Variant):
    __slots__ = ()

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """Where the entries are, and the linear's weights rebuilt with them."""
        op = site.op
        weight, held = op.n * op.k, site.a.n * (op.n + op.k)
        require_at_most(site, "rank", site.a.n, weight / (op.n + op.k), "ranks at which LoRA has as many entries")
        yield "lora_indices", HeldWeights(
            role=f"{op.role}.lora_indices", elems=2.0 * held, stored_bytes=8.0 * held, frozen=True, layer=op.layer,
            activations=op.activations,
        )  # fmt: skip
        yield "lora_weights", rewritten(
            site, held=held, launches=3.0, vector_flops=2.0 * held, read_elems=held, write_elems=weight + 2.0 * held,
            made=op.activations, as_factors=False,
        )  # fmt: skip

    def remade(self, site: Site) -> Remade:
        """The copy is in W's own format, or 16 bits if that is quantised."""
        return "activations"

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The same, once."""
        return folded(merge, self.ahead(site))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The entries, and where they are."""
        held = rank * (op.n + op.k)
        return {"shira_weight": (held,), "shira_indices": (2, held)}


VARIANT = _Sparse(
    name="shira", peft_type="SHIRA", rank_default=32, scaled=False, bias=False, experts=False, conv1d=False,
    parts=("shira_weight", "shira_indices"),
)  # fmt: skip
