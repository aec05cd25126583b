"""The kernel of a matrix product: the fastest of a few output tiles and split-k factors, as an autotuner picks it.

References: tile and wave quantisation as in "Matrix Multiplication Background User's Guide", NVIDIA DU-09799;
split-k as in CUTLASS, `media/docs/efficient_gemm.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from graphsim.cost.families.formats import Format, peak_of
from graphsim.hardware import Hardware
from graphsim.symbolic.distinct import at_distinct
from graphsim.units import Num

SHAPES = ((64, 32), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128), (256, 256))
"""Rows and columns of the output tiles that a kernel may use."""

UNITS = (64, 32, 64)
"""Rows and columns of which all tiles are multiples, and the step along k."""

SPLITS = (1, 2, 4, 8, 16)
"""Split-k factors; only tiles up to 128 × 128 are split."""

_CHOICES = [(float(a), float(b), float(s)) for a, b in SHAPES for s in SPLITS if s == 1 or a * b <= 16384]
_COLUMNS = np.array(_CHOICES).T

_FEW = 256
"""Products up to which all choices are computed at once, along an axis of their own."""

_CONSTANTS = ("compute", "small_tile", "load_bytes_per_clock", "epilogue_clocks", "split_clocks", "split_bytes")
"""What tiles hang on besides the device's rates and the format."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """One choice, or all along a first axis: its size, the step of k and the share of a core, and what they cost.

    depth_s, epilogue_s: per element of k, and per tile; joining_s, partial_s: of split k, per product and per tile
    """

    rows: Any
    columns: Any
    step: Any
    share: Any
    depth_s: Any
    epilogue_s: Any
    joining_s: Any
    partial_s: Any


def fastest_s(c: Mapping[str, float], hardware: Hardware, form: Format, m: Num, n: Num, k: Num) -> Num:
    """Time of the best tile and split, once for all products of many that fill as many of the smallest tiles.

    compute: times the flops at one core's peak, more by `small_tile` · 128²/area
    load_bytes_per_clock: operand bytes that a core takes in per clock
    epilogue_clocks: per output element of a tile, not overlapped
    step_clocks: per element of k, the latency of the dependent chain
    wave: 0 for perfectly balanced waves, infinite for whole ones
    split_clocks, split_bytes: extra start and float32 traffic of the partial sums
    """
    rates = hardware.clock_hz, hardware.cores, hardware.memory_bytes_per_s, peak_of(hardware, form)
    fastest = partial(_fastest_s, c, rates, form)
    if max(map(np.size, (m, n, k))) <= _FEW or any(map(np.ndim, rates)):
        return fastest(m, n, k)
    best: Num = at_distinct(fastest, [np.ceil(size / unit) * unit for size, unit in zip((m, n, k), UNITS, strict=True)])
    return best


def _fastest_s(c: Mapping[str, float], rates: tuple[Any, ...], form: Format, m: Num, n: Num, k: Num) -> Num:
    whole, step_s = c["wave"] / (1.0 + c["wave"]), c["step_clocks"] / rates[0]
    best: Num = np.inf
    for tile in _tiles(c, rates, form, np.broadcast(m, n, k)):
        tiles = np.ceil(m / tile.rows) * np.ceil(n / tile.columns)
        depth = np.ceil(k / tile.step) * 64.0
        share = tiles * tile.share
        waves = np.maximum(share * (1.0 - whole) + np.ceil(share) * whole, 1.0)
        time = (
            waves * (depth * tile.depth_s + tile.epilogue_s)
            + depth * step_s
            + (tile.joining_s + tiles * tile.partial_s)
        )
        best = np.minimum(best, time.min(axis=0) if np.ndim(tile.rows) else time)
    return best


def _tiles(c: Mapping[str, float], rates: tuple[Any, ...], form: Format, products: np.broadcast) -> list[_Tile]:
    """All choices one by one for many products, or at once for a few."""
    constants = tuple([c[name] for name in _CONSTANTS])
    make = _made.__wrapped__ if any(map(np.ndim, rates)) else _made
    return make(constants, rates, form, -1 if products.size > _FEW else products.ndim)


@lru_cache(maxsize=256)
def _made(constants: tuple[float, ...], rates: tuple[Any, ...], form: Format, axes: int) -> list[_Tile]:
    """Choices as numbers, or with so many axes of products behind their own."""
    if axes < 0:
        return [_tile(constants, rates, form, *choice) for choice in _CHOICES]
    return [_tile(constants, rates, form, *_COLUMNS.reshape(3, -1, *[1] * axes))]


def _tile(
    constants: tuple[float, ...], rates: tuple[Any, ...], form: Format, rows: Any, columns: Any, split: Any
) -> _Tile:
    compute, small_tile, load_bytes, epilogue_clocks, split_clocks, split_bytes = constants
    clock, cores, bytes_per_s, peak = rates
    area = rows * columns
    flop_s = 2.0 * area * (compute * cores / peak) * (1.0 + small_tile * 16384.0 / area)
    load_s = (rows * form.x_bytes + columns * form.w_bytes) / (clock * load_bytes)
    joined = np.greater(split, 1.0)
    return _Tile(
        rows=rows, columns=columns, step=64.0 * split, share=split / cores,
        depth_s=np.maximum(flop_s, load_s), epilogue_s=area * epilogue_clocks / clock,
        joining_s=np.where(joined, split_clocks / clock, 0.0)[()],
        partial_s=np.where(joined, split_bytes * area * split / bytes_per_s, 0.0)[()],
    )  # fmt: skip
