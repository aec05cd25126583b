"""Thread blocks of an engine's kernels for adapters on experts: rows of one adapter and expert, padded to a height."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphsim.lora.tiling import Tiling
from graphsim.ops.lora_experts import ExpertLoraA
from graphsim.passes.engine import Engine
from graphsim.units import Num


class ExpertBlocks:
    """Thread blocks of a step's kernels on one stack of experts.

    rows: rows with an adapter; pairs: pairs of an adapter and an expert with such rows; live: 1 if there is an
        adapter, else 0
    """

    def __init__(self, engine: Engine, a: ExpertLoraA) -> None:
        self.experts, self.base = engine.profile.experts, a.routing
        self.live = np.minimum(engine.lora.adapted, 1.0)
        self.rows, self.pairs = a.m * self.live, a.pairs * self.live
        self.slots, self.adapters = engine.slots, engine.lora.adapted
        self.uncaptured_s, self.empty_tile_clocks = engine.uncaptured_s, engine.profile.empty_tile_clocks

    def chosen(self, tilings: tuple[Tiling, ...], of: Callable[[Tiling], float]) -> Num:
        """A field of the last tiling whose number of tokens the step reaches."""
        first, *others = tilings
        value: Num = of(first)
        for tiling in others:
            value = np.where(np.greater_equal(self.base.tokens, tiling.tokens), of(tiling), value)
        return value

    @property
    def height(self) -> Num:
        """Rows per block, as they are sorted for all kernels."""
        return self.chosen(self.experts.shrink, lambda tiling: tiling.rows)

    @property
    def padded(self) -> Num:
        """The most rows that the routed ones are padded to, for one adapter, or for pairs of all."""
        routed, held = self.base.m, self.base.experts
        groups = held * self.slots if self.experts.grid == "pairs" else held
        return routed + np.minimum(routed, groups) * (self.height - 1.0)

    @property
    def of_rows(self) -> Num:
        """1 where each row is its own block."""
        most = self.base.experts * self.slots / np.maximum(self.experts.row_blocks, 1.0)
        few: Num = np.less_equal(self.base.m, most) * float(self.experts.row_blocks > 0)
        return few

    @property
    def occupied(self) -> Num:
        """Blocks with rows: one for each pair at least, and half a block of padding where a pair has several."""
        sorted_ = np.maximum(self.pairs, self.rows / self.height + 0.5 * self.pairs)
        return np.where(self.of_rows, self.rows, sorted_)

    @property
    def launched(self) -> Num:
        """Number of blocks in the grid, with or without rows."""
        covered = {"slots": self.slots, "active": self.adapters, "pairs": 1.0}[self.experts.grid]
        return np.where(self.of_rows, self.base.m, covered * np.ceil(self.padded / self.height)) * self.live

    def tiles(
        self, tilings: tuple[Tiling, ...], columns: Num, k: Num, slices: float, *, launches: Num, start: Num
    ) -> dict[str, Any]:
        """The tiles of a kernel and the time of each: a start, and steps along k that wait for their operands.

        columns, k: of one slice
        launches: kernels
        start: the share of `block_start_clocks` of this kernel
        """
        width, split, depth = (
            self.chosen(tilings, of) for of in (lambda t: t.columns, lambda t: t.split_k, lambda t: max(t.depth, 1.0))
        )
        across = np.ceil(columns / width) * split * slices
        steps = np.ceil(k / (depth * split))
        chain = self.experts.block_start_clocks * start + self.experts.block_step_clocks * steps
        occupied = self.occupied * across
        return {
            "launches": launches * self.live, "tiles": occupied,
            "uncaptured_s": self.uncaptured_s * launches * self.live,
            "empty_tiles": np.maximum(self.launched * across - occupied, 0.0) * start,
            "tile_clocks": chain / self.experts.blocks_per_core, "empty_tile_clocks": self.empty_tile_clocks,
            "chain_clocks": chain,
        }  # fmt: skip
