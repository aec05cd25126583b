"""HRA: W times a chain of Householder reflections. arXiv 2405.17484.

PEFT 0.21 (`tuners/hra/layer.py`) writes the reflections as one matrix of all inputs, one after another, and W times it,
in every forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.lora.made import folded, rewritten
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.overrides import Remade
from graphsim.units import Num


class _Reflected(Variant):
    __slots__ = ()

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The linear's weights rebuilt: with `apply_GS` one GEMM of the vectors, else a step for each."""
        op, rank = site.op, site.a.n
        square, weight = op.k * op.k, op.n * op.k
        turns = 1.0 if site.lora.options["apply_GS"] else rank
        steps = 4.0 * rank * rank * op.k if site.lora.options["apply_GS"] else 0.0
        yield "lora_weights", rewritten(
            site, held=op.k * rank, launches=6.0 + 5.0 * rank,
            flops=4.0 * square * rank + steps + 2.0 * square * op.k + 2.0 * weight * op.k,
            vector_flops=3.0 * turns * square, read_elems=3.0 * turns * square + 3.0 * square,
            write_elems=3.0 * turns * square + 3.0 * square + weight,
        )  # fmt: skip

    def remade(self, site: Site) -> Remade:
        """The reflections are computed in the vectors' format, and W is cast to it."""
        return "factors"

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The same, once."""
        return folded(merge, self.ahead(site))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The vectors."""
        return {"hra_u": (op.k, rank)}


VARIANT = _Reflected(
    merges_few_bits=False, few_bits=False,
    name="hra", peft_type="HRA", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("hra_u",),
    options=(Option(name="apply_GS", default=False),),
)  # fmt: skip
