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
    """How an engine stores adapters on experts, and which kernels it runs for them.

    layout: what adapters store for experts' fused gate and up: `parameter`, as PEFT for one parameter, two factors of
        twice the rank; `projections`, one pair for each projection; `fused`, one pair whose B has both outputs. With
        slots for `every_linear`, experts have slots too, unless the layout is `parameter`
    fused_families: models with one fused pair, whatever the layout of others, by the first word of their names
    kernels: `separate` nodes for experts, or kernels over `blocks` of rows of one adapter and expert
    grid: what the blocks' grid covers: all `slots`, the `active` adapters, or `pairs` of an adapter and an expert, up
        to the largest number that the routed rows may need
    shrink, expand: tile sizes of the two kernels; the entry with the largest `tokens` that a step reaches applies
    sorts: number of kernels that sort rows into blocks, once for all GEMMs
    fills: number of kernels that clear the intermediate and the result, per GEMM
    one_shot_rank: reserved rank up to which one kernel does both GEMMs, unless adapters are fully sharded
    row_blocks: each row is a block if rows times this number do not exceed slots times experts; 0 for never
    block_start_clocks, block_step_clocks: clock cycles to start a block, and per step along k
    blocks_per_core: blocks of these kernels that a core runs at a time
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
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
        """The layout that applies to a model, by its name."""
        return "fused" if is_one_of(model, self.fused_families) else self.layout


_CHOICES = {"layout": LAYOUTS, "kernels": KERNELS, "grid": GRIDS}
_NUMBERS = {
    "sorts": (0.0, 100.0), "fills": (0.0, 100.0), "one_shot_rank": (0.0, 1e6), "row_blocks": (0.0, 1e6),
    "block_start_clocks": (0.0, 1e9), "block_step_clocks": (0.0, 1e9), "blocks_per_core": (1.0, 1e3),
}  # fmt: skip


def read_experts(fields: Fields, base: EngineExperts, inherited: Mapping[str, str]) -> EngineExperts:
    """The `experts` group of a profile's file, based on that of its base; a field may be `{value: …, source: …}`.

    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: a value that is not allowed, kernels over blocks without tile sizes.
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
