"""LoRA-XS: A and B come from the weight's singular vectors and stay, an r x r matrix between them is trained.

arXiv 2405.17604, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphsim.lora.variant import Site, Variant
from graphsim.ops import LoraGemm, Op


class _ExtraSmall(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """A, the trained matrix, B."""
        op, a, b = site.op, site.a, site.b
        yield "lora_a", replace(a, frozen=True)
        yield "lora_r", LoraGemm(
            role=f"{op.role}.lora_r", m=a.m, n=a.n, k=a.n, weights=a.weights, activations=a.activations,
            adapters=a.adapters, layer=a.layer,
        )  # fmt: skip
        yield "lora_b", replace(b, frozen=True)


VARIANT = _ExtraSmall(name="lora-xs")
