"""LoRA-XS: A and B come from the weight's singular vectors and stay, an r x r matrix between them is trained.

arXiv 2405.17604, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphsim.lora.variant import Site, Variant
from graphsim.ops import Op


class _ExtraSmall(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """A, the trained matrix, B."""
        yield "lora_a", replace(site.a, frozen=True)
        yield "lora_r", site.between("lora_r")
        yield "lora_b", replace(site.b, frozen=True)


VARIANT = _ExtraSmall(name="lora-xs")
