"""IA3: a trained vector scales a linear's result, or a feed-forward module's input. arXiv 2205.05638, section 3.3."""

from __future__ import annotations

import re
from collections.abc import Iterator

from graphsim.graph import Step
from graphsim.lora.made import folded, live, scaled_input, scaled_result
from graphsim.lora.matching import matched
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.ops.adapter_weights import BuiltWeights
from graphsim.units import Num


class _Rescaled(Variant):
    __slots__ = ()

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The scaled input of a feed-forward module."""
        if _feeds_forward(site.op, site.lora):
            yield "lora_scaled", scaled_input(site, "lora_scaled", vectors=live(site), launches=live(site))

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def behind(self, site: Site) -> Iterator[Step]:
        """The scaled result of all other modules."""
        if not _feeds_forward(site.op, site.lora):
            yield from scaled_result(site, "lora_scaled", vectors=live(site), launches=live(site))

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The weights by rows or columns."""
        op = site.op
        vector = op.k if _feeds_forward(site.op, site.lora) else op.n
        made = BuiltWeights(
            role=f"{op.role}.lora_scaled", held=vector, elems=0.0, rank=site.a.n, factors=site.a.weights,
            vector_flops=op.n * op.k, split=op.split, units=op.units, weights=op.weights, layer=op.layer,
        )  # fmt: skip
        return folded(merge, iter([("lora_scaled", made)]))

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The vector."""
        return {"ia3_l": (1, op.k) if _feeds_forward(op, lora) else (op.n, 1)}


def _feeds_forward(op: Gemm, lora: Described) -> bool:
    """PEFT's rule: an expression matches the whole path, a name its end, even within a word.

    By default, the projections from an MLP back to the residual stream.
    """
    names = lora.options["feedforward_modules"]
    if names is None:
        return "down" in op.tags
    if isinstance(names, str):
        return matched(names, op.module, "options.feedforward_modules", re.fullmatch) is not None
    return any(op.module.endswith(name) for name in names)


VARIANT = _Rescaled(
    merges_few_bits=False,
    name="ia3", peft_type="IA3", rank_field="", scaled=False, bias=False, experts=False,
    parts=("ia3_l",),
    options=(Option(name="feedforward_modules", names=True),),
)  # fmt: skip
