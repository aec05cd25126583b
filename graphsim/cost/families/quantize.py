"""Quantisation of activations by a separate kernel: m rows of k numbers, read in 16 bits and written in 8.

    t = exp(surface) · ( launch + depth · k + row · m / cores + traffic / bandwidth )

A block processes a row, so the time of few long rows is the walk along one, and of many short rows the start of their
blocks. Frameworks that compute the scales themselves (SGLang's measured call) read the numbers several times.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.elementwise import cached_floor_s, traffic_s
from graphsim.cost.families.formats import element_bytes
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec
from graphsim.cost.surfaces.kernel_fit import fit_kernel
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.ops.formats import FORMATS
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

DTYPES = ("fp8", "int8")
"""One-byte formats to which activations are quantised."""

START = {
    "launch_s": 2e-6, "depth_clocks": 0.1, "row_clocks": 200.0, "dram": 1.15, "cache": 0.7, "cache_fit": 0.7,
    "cache_edge": 4.0,
}  # fmt: skip
"""Constants before any fit; see `_skeleton` for their meanings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeShape:
    """One kernel over x[m, k]; dtype: that it writes."""

    family: ClassVar[str] = "quantize"

    m: Num
    k: Num
    dtype: str = "fp8"


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: QuantizeShape) -> Num:
    """Time before the surface.

    depth_clocks: of one core for each number of a row; row_clocks: of one core for each row, shared by all cores
    dram, cache, cache_fit, cache_edge: as of other memory-bound kernels (`elementwise.traffic_s`); `dram` counts the
    passes of frameworks that quantise in several
    """
    all_cores = hardware.cores * hardware.clock_hz
    start_s = c["launch_s"] + c["depth_clocks"] * shape.k / hardware.clock_hz + c["row_clocks"] * shape.m / all_cores
    return start_s + traffic_s(c, hardware, _bytes(shape))


def _bytes(shape: QuantizeShape) -> Num:
    """Numbers read in 16 bits, and written."""
    return (FORMATS["bf16"].bytes + element_bytes(shape.dtype, "scale_matrix")) * (shape.m * shape.k)


def roofline_s(hardware: Hardware, shape: QuantizeShape) -> Num:
    """Bytes at the datasheet's bandwidth."""
    return _bytes(shape) / hardware.memory_bytes_per_s


def _coordinates(hardware: Hardware, shape: QuantizeShape) -> dict[str, Num]:
    """log2 of physical sizes."""
    return {
        "rows": np.log2(shape.m / hardware.cores),
        "width": np.log2(shape.k),
        "fill": np.log2(_bytes(shape) / np.maximum(hardware.cache_bytes, 1.0)),
    }


LAYOUT = SurfaceSpec(
    knots={
        "rows": [-8, -6, -4, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8], "width": [5, 6, 8, 10, 11, 12, 13, 14, 16],
        "fill": [-12, -8, -6, -5, -4, -3, -2, -1, 0, 1, 2, 4, 7],
    },
    terms=[("rows", "width"), ("fill",)],
    flat=0.1,
)  # fmt: skip
"""The coordinates of each correction table, and their knots."""


LEVELS = (DTYPES,)
SURFACES = (LAYOUT,)


def needed(dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: QuantizeShape) -> Num:
    """Seconds of one kernel, from fitted `parameters` (of `fit`); no rows, no time.

    Raises ConfigError for an unknown dtype.
    """
    safe = QuantizeShape(m=np.maximum(shape.m, 1.0), k=np.maximum(shape.k, 1.0), dtype=shape.dtype)
    entry = entry_of(parameters, (shape.dtype,), lambda one: _entry(one, shape.dtype))
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, safe), lambda: _coordinates(hardware, safe))
    time = np.maximum(time, cached_floor_s(hardware, _bytes(safe)))
    return np.where(np.greater(shape.m * shape.k, 0), time, 0.0)


def _entry(parameters: Mapping[str, Any], dtype: str) -> KernelFit:
    return parameters.get(dtype) or next(iter(parameters.values()), {"constants": START})


def shape_of(frame: pd.DataFrame) -> QuantizeShape:
    """The shape of reference rows of one `dtype`."""
    m, k = (frame[name].to_numpy(dtype=float) for name in ("m", "k"))
    return QuantizeShape(m=m, k=k, dtype=str(frame["dtype"].iloc[0]))


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per dtype from reference rows of op `scale_matrix`."""
    return {
        str(dtype): _fit_one(shape_of(rows), rows["latency_us"].to_numpy(dtype=float) * 1e-6, hardware)
        for dtype, rows in frame.groupby("dtype", sort=True)
    }


def _fit_one(shape: QuantizeShape, measured_s: Array, hardware: Hardware) -> dict[str, Any]:
    return fit_kernel(
        lambda c: _skeleton(c, hardware, shape), _coordinates(hardware, shape), measured_s, start=START, layout=LAYOUT,
        order=lambda c: _order(c, hardware, shape.dtype), hold=3e-4, rounds=60,
    )  # fmt: skip


def _arrays(hardware: Hardware, shape: QuantizeShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(hardware, shape).items()}


def _order(constants: Mapping[str, float], hardware: Hardware, dtype: str) -> Order:
    """Pairs of kernels, the second with up to four times the rows or the width."""
    random, count = np.random.default_rng(0), 6_000
    bits = random.uniform((0.0, 5.0), (16.0, 16.0), (count, 2))
    more = np.where(np.arange(2) == random.integers(0, 2, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    low, high = (QuantizeShape(m=m, k=k, dtype=dtype) for m, k in (np.ceil(2.0**x).T for x in (bits, bits + more)))
    growth = np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low))
    return Order(low=_arrays(hardware, low), high=_arrays(hardware, high), least=-growth, weight=30.0)
