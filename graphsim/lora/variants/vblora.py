"""VB-LoRA: A and B are composed from a bank of vectors that all modules share. arXiv 2405.15179.

PEFT 0.21 (`tuners/vblora/layer.py`) chooses the best of the bank for every piece of A and B, weighs and adds them, in
every forward pass; a file with `save_only_topk_weights` is expanded on loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from graphsim.lora.made import built, folded, require_divisor
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.formats import FORMATS
from graphsim.units import Num


class _VectorBank(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The composed factors, and the two GEMMs with them."""
        options, elems = site.lora.options, site.a.n * (site.op.n + site.op.k)
        vectors, length, chosen = (options[key] for key in ("num_vectors", "vector_length", "topk"))
        require_divisor(site, "options.vector_length", length)
        logits = elems / length * vectors
        yield "lora_logits", built(
            site, "lora_logits", held=logits, elems=elems, launches=12.0, vector_flops=logits + 2.0 * chosen * elems,
            read_elems=logits + (3.0 * chosen + 1.0) * elems, write_elems=(2.0 * chosen + 2.0) * elems,
        )  # fmt: skip
        yield "lora_a", replace(site.a, shared=True, frozen=True)
        yield "lora_b", replace(site.b, shared=True, frozen=True)

    def shared(self, sizes: Sequence[tuple[Num, Num]], lora: Described) -> Iterator[tuple[str, Op]]:
        """The bank, which is trained."""
        elems = np.minimum(lora.rank, 1.0) * lora.options["num_vectors"] * lora.options["vector_length"]
        yield (
            "lora_bank",
            HeldWeights(
                role="lora_bank",
                elems=elems,
                factors=True,
                stored_bytes=elems * FORMATS[lora.lora_dtype].bytes,
            ),
        )

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The factors, their product, and the sum."""
        return folded(merge, self.chain(site), 2.0 * site.op.n * site.op.k * site.a.n)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The logits of every piece."""
        length, vectors = lora.options["vector_length"], lora.options["num_vectors"]
        return {
            "vblora_logits_A": (rank, op.k / length, vectors), "vblora_logits_B": (op.n / length, rank, vectors),
        }  # fmt: skip


VARIANT = _VectorBank(
    merges_few_bits=False,
    name="vblora", peft_type="VBLORA", rank_default=4, scaled=False, bias=False, experts=False,
    parts=("vblora_logits_A", "vblora_logits_B", "vblora_logits_A_topk_weights", "vblora_logits_A_topk_indices"),
    options=(
        Option(name="num_vectors", default=256),
        Option(name="vector_length", default=256),
        Option(name="topk", default=2, most=10**6),
    ),
)  # fmt: skip
