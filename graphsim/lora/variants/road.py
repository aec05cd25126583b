"""RoAd: pairs of a linear's results are rotated and scaled. arXiv 2409.00119, equation 4.

PEFT 0.21 (`tuners/road/layer.py`): half of each group is rotated and stacked, both halves are scaled and added.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsim.graph import Step
from graphsim.lora.made import built, folded, live, require_divisor, scaled_result
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.units import Num

NUMBERS = {"road_1": 1.0, "road_2": 2.0, "road_4": 4.0}
"""Angles and scales for each result: shared by a pair, one per result, or one per result and side of the rotation."""


class _Rotated(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def behind(self, site: Site) -> Iterator[Step]:
        """The rotated result: a rotated copy, two products and a sum, after computing the two columns of numbers."""
        numbers = NUMBERS[site.lora.options["variant"]] * live(site)
        require_divisor(site, "options.group_size", site.lora.options["group_size"], inputs=False)
        yield from scaled_result(site, "lora_scaled", vectors=numbers, steps=4.0, passes=5.0, launches=9.0 * live(site))

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """A matrix of all outputs, times W."""
        op = site.op
        numbers, square = NUMBERS[site.lora.options["variant"]] * live(site), op.n * op.n
        made = built(site, "lora_scaled", held=numbers * op.n, elems=square, launches=6.0, write_elems=3.0 * square)
        return folded(merge, iter([("lora_scaled", made)]), 2.0 * square * op.k)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """Angles and scales."""
        numbers = NUMBERS[lora.options["variant"]] * op.n / 2.0
        return {"road_theta": (numbers,), "road_alpha": (numbers,)}


VARIANT = _Rotated(
    name="road", peft_type="ROAD", rank_field="", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("road_theta", "road_alpha"),
    options=(
        Option(name="variant", default="road_1", choices=tuple(NUMBERS)),
        Option(name="group_size", default=64, least=2),
    ),
)  # fmt: skip
