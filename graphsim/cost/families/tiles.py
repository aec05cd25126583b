"""The kernel of a GEMM: the fastest of a few output tiles and split-k factors, as an autotuner picks it.

References: tile and wave quantisation as in "Matrix Multiplication Background User's Guide", NVIDIA DU-09799;
split-k as in CUTLASS, `media/docs/efficient_gemm.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache, partial, reduce
from math import ceil
from typing import Any

import numpy as np

from graphsim.cost.families.formats import peak_of
from graphsim.cost.families.tile_rows import FEW_ROWS, NEAR, ROWS, Rows
from graphsim.hardware import Hardware
from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.expr import Expr
from graphsim.symbolic.kernel import Kernel, called
from graphsim.units import Num

SHAPES = ((64, 32), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128), (256, 256))
"""Rows and columns of the output tiles that a kernel may use."""

UNITS = (64, 32, 64)
"""Rows and columns of which all tiles are multiples, and the step along k."""

SPLITS = (1, 2, 4, 8, 16)
"""Split-k factors; only tiles up to 128 × 128 are split."""

_CHOICES = [(float(a), float(b), float(s)) for a, b in SHAPES for s in SPLITS if s == 1 or a * b <= 16384]
_COLUMNS = np.array(_CHOICES).T

PADDING = 0.5
"""Of the time that weights take from memory at its bandwidth, the most that the flops of padded rows take. In formats
of the matrix units it is less on every measured device, 0.42 on the A100 in 16 bits, and TensorRT-LLM's weights of 4
bits there take as long for 16 rows as for one, but 1.7 times as long for 64. An H20 has an H200's bandwidth and a
seventh of its peak."""

_FEW = 256
"""Number of GEMMs up to which all choices are computed at once, along a separate axis."""

_CONSTANTS = ("compute", "small_tile", "load_bytes_per_clock", "epilogue_clocks", "split_clocks", "split_bytes")
"""Constants that tiles depend on, in addition to the device's rates and the format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """Bytes per number of x and per weight as the tiles load them, and the matrix formats whose rate may apply."""

    x_bytes: float
    w_bytes: float
    rates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tile:
    """One choice, or all along a first axis: its size, the step of k, the share of a core, and the times.

    flop_s, load_s: per element of k, of the flops and of loading both operands
    epilogue_s: per tile
    joining_s, partial_s: of split k, per GEMM and per tile
    """

    rows: Any
    columns: Any
    step: Any
    share: Any
    flop_s: Any
    load_s: Any
    epilogue_s: Any
    joining_s: Any
    partial_s: Any


@dataclass(frozen=True, slots=True)
class _Tiled:
    """One weight with one choice, or all: the times that do not depend on the rows.

    share: of the cores, that a row of tiles takes
    partial_s: of a row of tiles, for partial sums
    wave_s: of a wave;
    once_s: of a call
    """

    share: Any
    partial_s: Any
    wave_s: Any
    once_s: Any


def fastest_s(c: Mapping[str, float], hardware: Hardware, operands: Operands, m: Num, n: Num, k: Num) -> Num:
    """Time of the best tile and split, computed once for all GEMMs that fill equally many smallest tiles.

    Fewer rows than the smallest tile has are padded to its rows, or to fewer where that would take too long: kernels
    for few rows (GEMV, weights as rows, Marlin) are written where padding would hold up the weights.

    compute: times the flops at one core's peak, more by `small_tile` · 128²/area
    load_bytes_per_clock: operand bytes that a core loads per clock
    epilogue_clocks: per output element of a tile, not overlapped
    step_clocks: per element of k, the latency of the dependent chain
    wave: 0 for perfectly balanced waves, infinite for whole ones
    split_clocks, split_bytes: extra start and float32 traffic of the partial sums
    """
    rates = _rates(hardware, operands)
    fitted, *others = fixed = _fixed(c)
    if Expr in map(type, (*fitted, *others)):
        kernel = _recorded_of_constants(rates[1], operands)
        return called(kernel, _whole_tiles(m, n, k), (rates[0], *rates[2:], *fitted, *others))  # type: ignore[no-any-return]
    if Expr in map(type, (m, n, k, *rates)):
        kernel = _recorded(*fixed, rates[1], operands)
        return called(kernel, _whole_tiles(m, n, k), (rates[0], *rates[2:]))  # type: ignore[no-any-return]
    return _all_choices(c, hardware, operands)(m, n, k)


def fastest_tile(
    c: Mapping[str, float], hardware: Hardware, operands: Operands, m: Num, n: Num, k: Num
) -> tuple[float, float, float]:
    """Rows and columns of the tile, and the split of k, that `fastest_s` takes for one GEMM, of single numbers."""
    return _CHOICES[int(np.argmin(_all_choices(c, hardware, operands).times_s(m, n, k)))]


def _all_choices(c: Mapping[str, float], hardware: Hardware, operands: Operands) -> _Choices:
    rates = _rates(hardware, operands)
    make = _Choices if any(isinstance(rate, np.ndarray) for rate in rates) else _choices
    return make(*_fixed(c), rates, operands)


def _rates(hardware: Hardware, operands: Operands) -> tuple[Any, ...]:
    return hardware.clock_hz, hardware.cores, hardware.memory_bytes_per_s, peak_of(hardware, operands.rates)


def _fixed(c: Mapping[str, float]) -> tuple[tuple[float, ...], float, float]:
    return tuple([c[name] for name in _CONSTANTS]), c["wave"], c["step_clocks"]


@lru_cache(maxsize=256)
def _recorded(
    constants: tuple[float, ...], wave: float, step_clocks: float, cores: float, operands: Operands
) -> Kernel:
    """The best choice as a function of sizes that are multiples of UNITS, and of the rates of a device."""

    def choices(make: Callable[..., _Choices], clock: Any, bytes_per_s: Any, peak: Any) -> _Choices:
        return make(constants, wave, step_clocks, (clock, cores, bytes_per_s, peak), operands)

    return Kernel(
        ("m", "n", "k"), lambda m, n, k, *rates: choices(_Choices, *rates).one_by_one(m, n, k),
        lambda n, k, *rates: choices(_choices, *rates).rows_of(n, k), ("clock_hz", "bytes_per_s", "peak"),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _recorded_of_constants(cores: float, operands: Operands) -> Kernel:
    """The same as a function of the fitted constants too."""

    def choices(make: Callable[..., _Choices], clock: Any, bytes_per_s: Any, peak: Any, *c: Any) -> _Choices:
        *constants, wave, step_clocks = c
        return make(tuple(constants), wave, step_clocks, (clock, cores, bytes_per_s, peak), operands)

    return Kernel(
        ("m", "n", "k"), lambda m, n, k, *given: choices(_Choices, *given).one_by_one(m, n, k),
        lambda n, k, *given: choices(_choices, *given).rows_of(n, k),
        ("clock_hz", "bytes_per_s", "peak", *_CONSTANTS, "wave", "step_clocks"),
    )  # fmt: skip


class _Choices:
    """All tiles and splits on one device; as a function, the time of the best one for GEMMs of m, n and k."""

    def __init__(
        self, constants: tuple[float, ...], wave: float, step_clocks: float, rates: tuple[Any, ...], operands: Operands
    ) -> None:
        self._many_devices = any(isinstance(rate, np.ndarray) for rate in rates)
        self._tile = partial(_tile, constants, rates, operands)
        self._whole, self._step_s = wave / (1.0 + wave), step_clocks / rates[0]
        self._each = [self._tile(*choice) for choice in _CHOICES]
        _, _, bytes_per_s, peak = rates
        self._padded = PADDING * peak * operands.w_bytes / (2.0 * bytes_per_s)

    def rows_of(self, n: float, k: float) -> Rows:
        """The same for one weight, as a function of the rows."""
        few = np.asarray(self._at_once(np.arange(FEW_ROWS, ROWS + 1.0, FEW_ROWS), n, k))
        near = np.asarray(self._at_once(ROWS * np.arange(1.0, NEAR + 1.0), n, k))
        plain = (_Tile(*map(float, astuple(tile))) for tile in self._each)
        tiled = [(t.rows, _tiled(t, self._step_s, ceil(n / t.columns), ceil(k / t.step), 1.0)) for t in plain]
        choices = [(rows, it.share, it.partial_s, it.wave_s, it.once_s) for rows, it in tiled]
        return Rows(few.tolist(), near.tolist(), choices, self._whole)

    def __call__(self, m: Num, n: Num, k: Num) -> Num:
        """Seconds."""
        if self._many_devices:
            return self.one_by_one(m, n, k)
        if max([size.size if isinstance(size, np.ndarray) else 1 for size in (m, n, k)]) <= _FEW:
            return self._at_once(m, n, k)
        best: Num = at_distinct(self.one_by_one, _whole_tiles(m, n, k))
        return best

    def _at_once(self, m: Num, n: Num, k: Num) -> Num:
        best: Num = np.minimum.reduce(self.times_s(m, n, k))
        return best

    def times_s(self, m: Num, n: Num, k: Num) -> Any:
        """Seconds of each choice, along an axis of their own."""
        tile = self._tile(*_COLUMNS.reshape(3, -1, *[1] * np.broadcast(m, n, k).ndim))
        tiled = _tiled(tile, self._step_s, np.ceil(n / tile.columns), np.ceil(k / tile.step), self._used(m))
        return _time_s(tiled, self._whole, np.ceil(m / tile.rows))

    def _used(self, m: Num) -> Num:
        """Share of the smallest tile's rows that is computed: actual rows and padding."""
        rows = np.maximum(np.ceil(m / FEW_ROWS) * FEW_ROWS, self._padded)
        share: Num = np.minimum(rows / ROWS, 1.0)
        return share

    def one_by_one(self, m: Num, n: Num, k: Num) -> Num:
        """One choice after the other, so that intermediate arrays stay small."""
        high, wide, deep = (
            {length: np.ceil(size / length) for length in {getattr(tile, name) for tile in self._each}}
            for size, name in ((m, "rows"), (n, "columns"), (k, "step"))
        )
        used = self._used(m)
        tiled = (_tiled(tile, self._step_s, wide[tile.columns], deep[tile.step], used) for tile in self._each)
        times = (_time_s(it, self._whole, high[tile.rows]) for tile, it in zip(self._each, tiled, strict=True))
        return reduce(np.minimum, times)


_choices = lru_cache(maxsize=256)(_Choices)


def _whole_tiles(m: Num, n: Num, k: Num) -> list[Num]:
    """The sizes rounded up to the common unit of all tiles; sizes with equal results cost the same."""
    rows, wide, deep = (np.ceil(size / unit) * unit for size, unit in zip((m, n, k), UNITS, strict=True))
    return [np.where(np.less_equal(m, ROWS), np.ceil(m / FEW_ROWS) * FEW_ROWS, rows)[()], wide, deep]


def _tiled(tile: _Tile, step_s: Num, wide: Num, deep: Num, used: Num) -> _Tiled:
    """wide: tiles side by side; deep: their steps along k; used: share of their rows"""
    depth = deep * 64.0
    depth_s = np.maximum(used * tile.flop_s, tile.load_s)
    return _Tiled(
        share=wide * tile.share, partial_s=wide * tile.partial_s,
        wave_s=depth * depth_s + tile.epilogue_s, once_s=depth * step_s + tile.joining_s,
    )  # fmt: skip


def _time_s(tiled: _Tiled, whole: float, high: Num) -> Num:
    """high: tiles on top of each other"""
    share = high * tiled.share
    waves = np.maximum(share * (1.0 - whole) + np.ceil(share) * whole, 1.0)
    time: Num = waves * tiled.wave_s + (tiled.once_s + high * tiled.partial_s)
    return time


def _tile(
    constants: tuple[float, ...], rates: tuple[Any, ...], operands: Operands, rows: Any, columns: Any, split: Any
) -> _Tile:
    compute, small_tile, load_bytes, epilogue_clocks, split_clocks, split_bytes = constants
    clock, cores, bytes_per_s, peak = rates
    area = rows * columns
    flop_s = 2.0 * area * (compute * cores / peak) * (1.0 + small_tile * 16384.0 / area)
    load_s = (rows * operands.x_bytes + columns * operands.w_bytes) / (clock * load_bytes)
    joined = np.greater(split, 1.0)
    return _Tile(
        rows=rows, columns=columns, step=64.0 * split, share=split / cores,
        flop_s=flop_s, load_s=load_s, epilogue_s=area * epilogue_clocks / clock,
        joining_s=np.where(joined, split_clocks / clock, 0.0)[()],
        partial_s=np.where(joined, split_bytes * area * split / bytes_per_s, 0.0)[()],
    )  # fmt: skip
