"""The launch grids of an engine's kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from graphsim.lora.tiling import Tiling
from graphsim.passes.engine import Engine
from graphsim.units import Num


class Grid:
    """Thread blocks of a step's kernels: tiles of one adapter's tokens, for every adapter that the grid covers.

    rows: rows with an adapter; step_rows: all rows of the step, over which slots are covered; the same by default
    """

    def __init__(self, engine: Engine, rows: Num, adapters: Num, step_rows: Num | None = None) -> None:
        self.profile = engine.profile
        self.live = np.maximum(np.minimum(adapters, 1.0), engine.idle)
        self.rows = rows
        self.step_rows = rows if step_rows is None else step_rows
        self.adapters = adapters
        self.covered = engine.slots + engine.profile.extra_slots if engine.profile.grid == "slots" else adapters
        self.uncaptured_s = engine.uncaptured_s * self.live

    def tiles(
        self, tilings: tuple[Tiling, ...], columns: Num, slices: int, widths: Sequence[Num] = ()
    ) -> dict[str, Any]:
        """Whether the kernel is launched, its numbers of tiles with and without tokens, and the time of each.

        columns: columns of a slice, or of the widest one
        widths: columns of each slice, where they differ
        Among the tilings whose number of tokens the step reaches, each at its `held` tokens, the slowest applies, so
        that switching to another tiling never makes a larger step faster.
        """
        found: dict[str, Any] = {"launches": self.live, "uncaptured_s": self.uncaptured_s}
        most: Num = 0.0
        for tiling, tokens in _held(tilings):
            tile_clocks = self.profile.tile_clocks if tiling.clocks is None else tiling.clocks
            tiles, empty = self._tiles(tiling, tokens, columns, slices, widths)
            clocks = tiles * tile_clocks + empty * self.profile.empty_tile_clocks
            one = {"tiles": tiles, "empty_tiles": empty, "tile_clocks": tile_clocks}
            if tiling.tokens:
                chosen = np.greater_equal(self.step_rows, tiling.tokens) & np.greater_equal(clocks, most)
                one = {key: np.where(chosen, value, found[key]) for key, value in one.items()}
                clocks = np.where(chosen, clocks, most)
            found |= one
            most = clocks
        return found | {"empty_tile_clocks": self.profile.empty_tile_clocks} if tilings else found

    def _tiles(
        self, tiling: Tiling, tokens: float, columns: Num, slices: int, widths: Sequence[Num]
    ) -> tuple[Num, Num]:
        """Tiles with and without tokens, of a step of at most this number of tokens.

        The distribution of tokens over adapters is unknown: each adapter has one tile, plus as many tiles as if one
        adapter had all other tokens, as with a prompt; at most one per token.
        """
        rows, step_rows = np.minimum(self.rows, tokens), np.minimum(self.step_rows, tokens)
        present = np.maximum(np.minimum(self.adapters, rows), 1.0)
        high = np.minimum(rows, self.live * (present + np.ceil(rows / tiling.rows) - 1.0))
        launched = np.ceil(columns / tiling.columns) * slices
        used = sum((np.ceil(width / tiling.columns) for width in widths), start=0.0) if widths else launched
        occupied = high * used * tiling.split_k
        if self.profile.grid != "slots":
            return occupied, 0.0
        covered = self.live * self.covered * np.ceil(step_rows / tiling.rows) * launched * tiling.split_k
        return occupied, np.maximum(covered - occupied, 0.0)


def _held(tilings: tuple[Tiling, ...]) -> Iterator[tuple[Tiling, float]]:
    """Tilings, each with the number of tokens at which it is priced: at most the last before the next one."""
    for tiling, after in zip_longest(tilings, tilings[1:]):
        yield tiling, min(tiling.held, after.tokens - 1.0) if after else np.inf
