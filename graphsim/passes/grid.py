"""Thread blocks that an engine's kernels are launched over."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.lora.profile import Tiling
from graphsim.passes.engine import Engine
from graphsim.units import Num


class Grid:
    """Thread blocks of a step's kernels: tiles of one adapter's tokens, for every adapter that the grid covers."""

    def __init__(self, engine: Engine, rows: Num, adapters: Num) -> None:
        self.profile = engine.profile
        self.live = np.minimum(adapters, 1.0)
        self.rows = rows
        self.adapters = adapters
        self.covered = engine.slots if engine.profile.grid == "slots" else adapters

    def tiles(self, tilings: tuple[Tiling, ...], columns: Num, slices: int) -> dict[str, Any]:
        """Whether the kernel is launched, its tiles with and without tokens, and what each takes."""
        profile = self.profile
        if not tilings:
            return {"launches": self.live}
        first = tilings[0]
        rows: Num = first.rows
        width: Num = first.columns
        split: Num = first.split_k
        for tiling in tilings[1:]:
            reached = np.greater_equal(self.rows, tiling.tokens)
            rows = np.where(reached, tiling.rows, rows)
            width = np.where(reached, tiling.columns, width)
            split = np.where(reached, tiling.split_k, split)
        present = np.minimum(self.adapters, self.rows)
        each = np.ceil(self.rows / np.maximum(present, 1.0) / rows)
        across = np.ceil(columns / width) * split * slices
        occupied = present * each * across
        launched = self.covered * np.ceil(self.rows / rows) * across * self.live
        empty = np.maximum(launched - occupied, 0.0) if profile.grid == "slots" else 0.0
        return {
            "launches": self.live, "tiles": occupied, "empty_tiles": empty,
            "tile_clocks": profile.tile_clocks, "empty_tile_clocks": profile.empty_tile_clocks,
        }  # fmt: skip
