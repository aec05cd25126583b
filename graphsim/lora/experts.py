"""How an engine runs adapters on experts: the `experts` group of its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.families import is_one_of, read_families
from graphsim.lora.sources import place
from graphsim.lora.tiling import Tiling, read_tilings

LAYOUTS = ("parameter", "projections", "fused")
KERNELS = ("separate", "blocks")
GRIDS = ("slots", "active", "pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExperts:
    """How an engine holds adapters on experts, and which kernels it runs for them.

    layout: what adapters hold of experts' fused gate and up: as PEFT of one `parameter` both factors twice as wide as
        the rank; of the two `projections` a pair each; one `fused` pair, whose B has both outputs. With slots for
        `every_linear`, experts have slots too unless it is `parameter`
    fused_families: models with one fused pair, whatever the layout of others, by the first word of their names
    kernels: `separate` nodes for experts, or kernels over `blocks` of rows of one adapter and expert
    grid: what their blocks are launched for: each of the `slots`, each `active` adapter, or `pairs` of an adapter and
        an expert, up to the most that the routed rows may need
    shrink, expand: tiles of the two kernels, the last one whose `tokens` are reached
    sorts: kernels that sort rows into blocks, once for all GEMMs
    fills: kernels that clear the intermediate and the result, per GEMM
    one_shot_rank: reserved rank up to which one kernel does both GEMMs, unless adapters are fully sharded
    row_blocks: each row is a block where rows times this do not exceed slots times experts; 0 for never
    block_start_clocks, block_step_clocks: clocks until a block works, and of each step of k
    blocks_per_core: of these kernels, at a time
    sources: where each field comes from; of one kept from another profile, "inherited from NAME: …"
    """

    layout: str = "parameter"
    fused_families: tuple[str, ...] = ()
    kernels: str = "separate"
    grid: str = "slots"
    shrink: tuple[Tiling, ...] = ()
    expand: tuple[Tiling, ...] = ()
    sorts: float = 1.0
    fills: float = 0.0
    one_shot_rank: float = 0.0
    row_blocks: float = 0.0
    block_start_clocks: float = 0.0
    block_step_clocks: float = 0.0
    blocks_per_core: float = 1.0
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def layout_of(self, model: str) -> str:
        """What adapters hold of the experts of a model, by its name."""
        return "fused" if is_one_of(model, self.fused_families) else self.layout


_CHOICES = {"layout": LAYOUTS, "kernels": KERNELS, "grid": GRIDS}
_NUMBERS = {
    "sorts": (0.0, 100.0), "fills": (0.0, 100.0), "one_shot_rank": (0.0, 1e6), "row_blocks": (0.0, 1e6),
    "block_start_clocks": (0.0, 1e9), "block_step_clocks": (0.0, 1e9), "blocks_per_core": (1.0, 1e3),
}  # fmt: skip


def read_experts(fields: Fields, base: EngineExperts, inherited: Mapping[str, str]) -> EngineExperts:
    """The group of a profile's file over that of its base; a field may be `{value: …, source: …}`.

    inherited: sources of what is kept from the base
    Problems are noted in `fields`: a value that is not allowed, kernels over blocks without their tiles.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    for key, choices in _CHOICES.items():
        at, name = place(fields, key, sources)
        found[key] = at.text(name, getattr(base, key), choices)
    for key, (least, most) in _NUMBERS.items():
        at, name = place(fields, key, sources)
        found[key] = at.number(name, getattr(base, key), least=least, most=most)
    at, name = place(fields, "fused_families", sources)
    found["fused_families"] = read_families(at, name, base.fused_families)
    for key in ("shrink", "expand"):
        at, name = place(fields, key, sources)
        found[key] = read_tilings(at, name, getattr(base, key))
    if found["kernels"] == "blocks" and not (found["shrink"] and found["expand"]):
        fields.problems.append("experts.kernels = 'blocks' needs the tiles of experts.shrink and experts.expand")
    return replace(base, **found, sources=sources)
