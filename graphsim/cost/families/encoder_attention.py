"""Bidirectional attention of encoders of text, images and sound: every query sees every key of its piece.

The kernels are those of a prompt without a mask: tiles of 128 queries of one head run in waves over the cores, and
each walks all keys.

    t = exp(surface) · ( launch + queries, outputs, keys, values / bandwidth + waves · tile · (keys + a tile's start) ),
    waves = (tiles³ + whole³)^⅓

and never below the roofline. Head widths are those of models; kernels pad some of them (72 to 80 or 128), which the
surface over the width captures.

References: Dao, "FlashAttention-2" (arXiv 2307.08691), section 3; the surface is `cost/surfaces/surface.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import ATTENTION, dtype_of, peak_of
from graphsim.cost.families.overlap import loosely_overlapped
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec
from graphsim.cost.surfaces.kernel_fit import fit_kernel
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

TILE_QUERIES = 128.0

START = {"launch_s": 7e-6, "tile": 1.5, "tile_keys": 100.0, "whole": 0.5, "dram": 1.2}
"""Constants before any fit; see `_skeleton` for their meanings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """One kernel over `batch` equal pieces.

    seq_len: queries of each
    kv_len: keys that each query sees, as many as there are queries unless said otherwise
    dtype: of queries, keys and values
    """

    family: ClassVar[str] = "encoder_attention"

    batch: Num
    seq_len: Num
    kv_len: Num
    heads: Num
    head_dim: Num
    dtype: str = "bfloat16"


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: EncoderShape) -> Num:
    """Time before the surface.

    tile: times the flops at one core's peak; tile_keys: keys that a tile's start is worth
    whole: from how many tiles per core on waves grow with the tiles; dram: times the datasheet's traffic time
    """
    core_flops_per_s = _peak(hardware, shape) / hardware.cores
    key_s = c["tile"] * TILE_QUERIES * 4.0 * shape.head_dim / core_flops_per_s
    tiles = shape.batch * shape.heads * np.maximum(shape.seq_len / TILE_QUERIES, 1.0) / hardware.cores
    traffic_s = c["dram"] * _bytes(shape) / hardware.memory_bytes_per_s
    return c["launch_s"] + traffic_s + loosely_overlapped(tiles, c["whole"]) * key_s * (shape.kv_len + c["tile_keys"])


def _peak(hardware: Hardware, shape: EncoderShape) -> Num:
    return peak_of(hardware, ATTENTION[dtype_of("attention", shape.dtype)].rates)


def _bytes(shape: EncoderShape) -> Num:
    """Queries, keys and values read, outputs written."""
    width = ATTENTION[dtype_of("attention", shape.dtype)].inputs.bytes
    return 2.0 * width * shape.heads * shape.head_dim * shape.batch * (shape.seq_len + shape.kv_len)


def roofline_s(hardware: Hardware, shape: EncoderShape) -> Num:
    """Both GEMMs' flops at peak or the bytes at memory bandwidth, whichever takes longer."""
    flops = 4.0 * shape.heads * shape.head_dim * (shape.batch * shape.seq_len * shape.kv_len)
    return np.maximum(flops / _peak(hardware, shape), _bytes(shape) / hardware.memory_bytes_per_s)


def _coordinates(hardware: Hardware, shape: EncoderShape) -> dict[str, Num]:
    """log2 of physical sizes."""
    tiles = shape.batch * shape.heads * np.ceil(shape.seq_len / TILE_QUERIES)
    return {
        "keys": np.log2(shape.kv_len),
        "waves": np.log2(tiles / hardware.cores),
        "dim": np.log2(shape.head_dim),
    }


LAYOUT = SurfaceSpec(
    knots={
        "keys": [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16], "waves": [float(x) for x in range(-8, 13)],
        "dim": [5, 6, 6.17, 6.32, 7, 8],
    },
    terms=[("keys", "waves"), ("keys", "dim"), ("waves", "dim")],
    flat=0.1,
)  # fmt: skip
"""The coordinates of each correction table, and their knots."""


LEVELS = (ATTENTION,)
SURFACES = (LAYOUT,)


def needed(dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: EncoderShape) -> Num:
    """Seconds of one kernel, from fitted `parameters` (of `fit`); no rows, no time.

    Raises ConfigError for an unknown dtype.
    """
    dtype = dtype_of("attention", shape.dtype)
    one = {name: np.maximum(getattr(shape, name), 1.0) for name in ("batch", "seq_len", "kv_len", "heads", "head_dim")}
    safe = replace(shape, **one)
    entry = entry_of(parameters, (dtype,), lambda known: _entry(known, dtype))
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, safe), lambda: _coordinates(hardware, safe))
    work = shape.batch * shape.seq_len * shape.kv_len * shape.heads
    return np.where(np.greater(work, 0), np.maximum(time, roofline_s(hardware, safe)), 0.0)


def _entry(parameters: Mapping[str, Any], dtype: str) -> KernelFit:
    return parameters.get(dtype) or next(iter(parameters.values()), {"constants": START})


def shape_of(frame: pd.DataFrame) -> EncoderShape:
    """The shape of reference rows of one `dtype`."""
    names = ("batch", "seq_len", "heads", "head_dim")
    numbers: dict[str, Any] = {name: frame[name].to_numpy(dtype=float) for name in names}
    return EncoderShape(**numbers, kv_len=numbers["seq_len"], dtype=dtype_of("attention", str(frame["dtype"].iloc[0])))


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per dtype from reference rows of op `encoder_attention`."""
    return {
        dtype_of("attention", str(dtype)): _fit_one(shape_of(rows), rows["latency_us"].to_numpy(dtype=float), hardware)
        for dtype, rows in frame.groupby("dtype", sort=True)
    }


def _fit_one(shape: EncoderShape, latency_us: Array, hardware: Hardware) -> dict[str, Any]:
    return fit_kernel(
        lambda c: _skeleton(c, hardware, shape), _coordinates(hardware, shape), latency_us * 1e-6, start=START,
        layout=LAYOUT, order=lambda c: _order(c, hardware, shape.dtype), hold=3e-4, rounds=40,
    )  # fmt: skip


def _arrays(hardware: Hardware, shape: EncoderShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(hardware, shape).items()}


def _order(constants: Mapping[str, float], hardware: Hardware, dtype: str) -> Order:
    """Pairs of kernels, the second with up to four times the pieces, rows or heads."""
    random, count = np.random.default_rng(0), 12_000
    bits = random.uniform(0.0, (7.0, 16.0, 5.5), (count, 3)) * random.choice([0.4, 1.0], (count, 3))
    more = np.where(np.arange(3) == random.integers(0, 3, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    head_dim = random.choice([64.0, 72.0, 80.0, 128.0], count)
    low, high = (
        EncoderShape(batch=batch, seq_len=rows, kv_len=rows, heads=heads, head_dim=head_dim, dtype=dtype)
        for batch, rows, heads in (np.ceil(2.0**exponents).T for exponents in (bits, bits + more))
    )
    growth = np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low))
    return Order(low=_arrays(hardware, low), high=_arrays(hardware, high), least=-growth, weight=30.0)
