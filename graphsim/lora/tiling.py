"""Tile sizes of an engine's adapter kernels, by the tokens of a step: an entry of its profile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.units import amount_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Tile sizes of a kernel from a number of tokens on.

    tokens: smallest number of tokens for which it applies
    rows, columns: rows of tokens and columns of results per
        tile
    split_k: number of parts into which k is split
    depth: part of k that a tile processes in one step; 0 if a tile counts as a whole
    clocks: clock cycles of one core per tile with tokens; the profile's `tile_clocks` by default
    held: tokens from which its time no longer grows, up to those of the next tiling
    """

    tokens: float = 0.0
    rows: float
    columns: float
    split_k: float = 1.0
    depth: float = 0.0
    clocks: float | None = None
    held: float = math.inf


def read_tilings(fields: Fields, key: str, kept: Iterable[Tiling]) -> tuple[Tiling, ...]:
    """The tilings below `key`, sorted by tokens, or those inherited from a base if the profile states none.

    Problems are noted in `fields`: a number out of its bounds, no entry for the smallest number of tokens, two entries
    for the same number.
    """
    if key not in fields:
        fields.raw(key)
        return tuple(kept)
    found = []
    for i, entry in enumerate(fields.sequence(key, most=32)):
        tile = fields.child(entry, f"{fields.name(key)}[{i}]")
        found.append(
            Tiling(
                tokens=float(tile.integer("tokens", 0, least=0)),
                rows=float(tile.integer("rows", most=65536)),
                columns=float(tile.integer("columns", most=65536)),
                split_k=float(tile.integer("split_k", 1, most=65536)),
                depth=float(tile.integer("depth", 0, least=0, most=65536)),
                clocks=tile.number("clocks", None, most=1e9),
                held=tile.number("held", math.inf, least=1.0),
            )
        )
    starts = sorted(tiling.tokens for tiling in found)
    if starts and starts[0] > 0:
        fields.problem(key, f"starts at tokens {amount_text(starts[0])}; expected a first entry at tokens 0")
    if len(set(starts)) < len(starts):
        fields.problem(key, "has two entries with the same tokens; expected one for each number of tokens")
    return tuple(sorted(found, key=lambda tiling: tiling.tokens))
