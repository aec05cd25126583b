"""FourierFT: some entries of a spectrum, which an inverse Fourier transform turns into a change of W. arXiv 2405.03003.

PEFT 0.21 (`tuners/fourierft/layer.py`) fills a spectrum in fp32, transforms it over both sides, takes the real part and
scales it in every forward pass, and runs a GEMM of the linear's dimensions. The rank is the number of entries.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.lora.made import built, folded, product, require_at_most
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.formats import FORMATS
from graphsim.units import Num


class _Spectral(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The weights computed from the entries, and the GEMM with them."""
        op = site.op
        weight = op.n * op.k
        require_at_most(site, "rank", site.a.n, weight, "entries of its weights")
        yield "lora_delta", built(
            site, "lora_delta", held=site.a.n, elems=weight, launches=7.0, made=FORMATS["fp32"], as_factors=False,
            vector_flops=weight * (5.0 * np.log2(np.maximum(weight, 1.0)) + 1.0), read_elems=7.0 * weight,
            write_elems=8.0 * weight,
        )  # fmt: skip
        yield "lora_product", product(site, "lora_product")

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The computed weights, and the sum."""
        return folded(merge, self.chain(site))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The entries."""
        return {"fourierft_spectrum": (rank,)}


VARIANT = _Spectral(
    merges_few_bits=False,
    name="fourierft", peft_type="FOURIERFT", rank_field="n_frequency", rank_default=1000, most=10**12,
    parts=("fourierft_spectrum",),
    pattern_field="n_frequency_pattern", scaled=False, bias=False, experts=False,
)  # fmt: skip
