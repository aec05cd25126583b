"""AdaLoRA: a trained diagonal between A and B, whose entries training prunes. arXiv 2303.10512.

PEFT 0.21 (`tuners/adalora/layer.py`) multiplies A by the diagonal in every forward pass. A file's ranks are `init_r`,
or those kept by `rank_pattern`.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.lora.made import built
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, Op
from graphsim.units import Num


class _Adaptive(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The diagonal times A, then the two factors."""
        rank, elems = site.a.n, site.a.n * site.a.k
        yield "lora_e", built(
            site, "lora_e", held=rank, elems=elems, launches=1.0, vector_flops=elems, read_elems=elems,
            write_elems=elems,
        )  # fmt: skip
        yield "lora_a", site.a
        yield "lora_b", site.b

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The factors and the diagonal."""
        return {"lora_A": (rank, op.k), "lora_B": (op.n, rank), "lora_E": (rank, 1)}


VARIANT = _Adaptive(
    merges_few_bits=False,
    name="adalora", peft_type="ADALORA", rank_field="init_r", rank_default=12, experts=False, bias=False,
    parts=("lora_A", "lora_B", "lora_E"),
    simpler="plain LoRA instead of AdaLoRA",
)  # fmt: skip
