"""Batched GEMMs of many heads, x[h][m,k] @ w[h][k,n]: those that absorb latent attention's up-projection.

One kernel moves operands and results of all heads once, through the last-level cache as far as they fit it, and
computes tiles whose rows are padded; formats narrower than the activations are quantised in front:

    t = exp(surface) · ( launch + ((traffic)⁴ + (compute · flops / peak)⁴)^¼ + quantise )

The kernel in front of decode attention brings queries to the latent's width (`pre`, n > k), the one after it brings
results back (`post`); they have fits of their own (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.elementwise import cached_floor_s, traffic_s
from graphsim.cost.families.formats import GEMM, Dtype, dtype_of, peak_of, stored_bytes
from graphsim.cost.families.overlap import overlapped
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec
from graphsim.cost.surfaces.kernel_fit import fit_kernel
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

SIDES = {"mla_bmm:mla_gen_pre": "pre", "mla_bmm:mla_gen_post": "post"}
"""The side of attention of each measured op."""

NOPE, RANK = 128.0, 512.0
"""DeepSeek-V3's width of a head without rotary dimensions, of keys and of values alike, and of the latent."""

ROW_TILE = 64.0

START = {"launch_s": 4e-6, "dram": 1.2, "cache": 0.5, "cache_fit": 0.7, "cache_edge": 4.0, "compute": 2.0}
QUANTISE_START = {"quantise_s": 2e-6, "quantise_bytes": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedShape:
    """One kernel: m rows of k inputs and n outputs for each of `heads` heads.

    weight_bytes, activation_bytes: per number; None for those of the dtype
    """

    family: ClassVar[str] = "batched_gemm"

    m: Num
    n: Num
    k: Num
    heads: Num
    dtype: str = "bfloat16"
    weight_bytes: float | None = None
    activation_bytes: float | None = None

    @property
    def formats(self) -> Dtype:
        """Formats of the operands and matrix rate for the dtype. Raises ConfigError for an unknown one."""
        return GEMM[dtype_of("gemm", self.dtype)]

    @property
    def w_bytes(self) -> float:
        """Bytes per weight."""
        return stored_bytes("gemm", self.dtype) if self.weight_bytes is None else self.weight_bytes

    @property
    def y_bytes(self) -> float:
        """Bytes per number of inputs and results."""
        return self.formats.activation_bytes if self.activation_bytes is None else self.activation_bytes

    @property
    def moved_bytes(self) -> Num:
        """Operands read once and results written once, in bytes."""
        x_bytes = self.formats.inputs.bytes if self.formats.quantised else self.y_bytes
        return self.heads * (self.w_bytes * self.k * self.n + (x_bytes * self.k + self.y_bytes * self.n) * self.m)


def _flops_s(hardware: Hardware, shape: BatchedShape, rows: Num) -> Num:
    return 2.0 * shape.heads * shape.n * shape.k / peak_of(hardware, shape.formats.rates) * rows


def floor_s(hardware: Hardware, shape: BatchedShape) -> Num:
    """A physical lower bound: peak flops, and memory bandwidth for what the cache cannot hold."""
    return np.maximum(_flops_s(hardware, shape, shape.m), cached_floor_s(hardware, shape.moved_bytes))


def roofline_s(hardware: Hardware, shape: BatchedShape) -> Num:
    """The bare datasheet roofline: flops at peak or bytes at memory bandwidth, whichever is longer."""
    return np.maximum(_flops_s(hardware, shape, shape.m), shape.moved_bytes / hardware.memory_bytes_per_s)


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: BatchedShape) -> Num:
    """launch_s: of one kernel, dram to cache_edge: see `traffic_s`; compute: times the padded rows' flops at peak.

    quantise_s, quantise_bytes: launch of the kernel before it, and times the traffic of its inputs
    """
    padded = ROW_TILE * np.ceil(shape.m / ROW_TILE)
    compute_s = c["compute"] * _flops_s(hardware, shape, padded)
    time = c["launch_s"] + overlapped(traffic_s(c, hardware, shape.moved_bytes), compute_s)
    if "quantise_s" in c:
        inputs = shape.heads * shape.m * shape.k * shape.y_bytes
        time = time + c["quantise_s"] + c["quantise_bytes"] * inputs / hardware.memory_bytes_per_s
    return time


def _coordinates(hardware: Hardware, shape: BatchedShape) -> dict[str, Num]:
    """log2 of rows, heads, and bytes over cache size."""
    fill = shape.moved_bytes / np.maximum(hardware.cache_bytes, 1.0)
    return {"m": np.log2(shape.m), "heads": np.log2(shape.heads), "fill": np.log2(fill)}


LAYOUT = SurfaceSpec(
    knots={"m": [0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14.5], "heads": [0, 2, 4, 5, 6, 7],
           "fill": [-10, -6, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 5]},
    terms=[("m", "heads"), ("fill", "heads")],
    flat=0.1,
)  # fmt: skip
"""The coordinates of each correction table, and their knots (log2 units)."""

LEVELS = (tuple(SIDES.values()), GEMM)
SURFACES = (LAYOUT,)


def needed(side: str, dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return start_of(dtype)


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: BatchedShape) -> Num:
    """Seconds of one kernel, from fitted `parameters` (of `fit`); no rows, no time.

    GEMMs in a narrow format that was not measured run in 16 bits, to which engines convert such weights on loading
    (vLLM, `v1/attention/backends/mla/common.py`, process_weights_after_loading); wider formats have the 16-bit
    constants. Raises ConfigError for an unknown format.
    """
    safe = replace(shape, **{name: np.maximum(getattr(shape, name), 1.0) for name in ("m", "n", "k", "heads")})
    narrows = np.less(shape.n, shape.k)
    pre, post = (partial(_side_s, parameters, hardware, safe, side) for side in ("pre", "post"))
    known = isinstance(narrows, bool | np.bool_)
    time = (post if narrows else pre)() if known else np.where(narrows, post(), pre())
    work = np.minimum(np.minimum(shape.m, shape.heads), np.minimum(shape.n, shape.k))
    return np.where(np.greater(work, 0), time, 0.0)


def borrowed(fits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts of other engines' fits that hold for an engine without measurements: the library's GEMMs in 16 bits."""
    return [
        {side: {"bfloat16": one[side]["bfloat16"]} for side in SIDES.values() if "bfloat16" in one.get(side, {})}
        for one in fits
    ]


def _side_s(parameters: Mapping[str, Any], hardware: Hardware, shape: BatchedShape, side: str) -> Num:
    name = _measured_format(parameters, shape, side)
    if name != dtype_of("gemm", shape.dtype) and shape.formats.weights.bytes <= GEMM[name].weights.bytes:
        shape = replace(shape, dtype=name, weight_bytes=None, activation_bytes=None)
    entry = entry_of(parameters, (side, name), lambda one: _entry(one, side, name))
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, shape), lambda: _coordinates(hardware, shape))
    return np.maximum(time, floor_s(hardware, shape))


def _measured_format(parameters: Mapping[str, Any], shape: BatchedShape, side: str) -> str:
    """The format that the kernel runs in: that of the weights, by tensor where theirs is by blocks; else 16 bits."""
    name = dtype_of("gemm", shape.dtype)
    tried = (name, "fp8") if shape.formats.weights.compute == "fp8" else (name,)
    return next((one for one in tried if one in parameters.get(side, {})), "bfloat16")


def _entry(parameters: Mapping[str, Any], side: str, dtype: str) -> KernelFit:
    known: Mapping[str, KernelFit] = parameters.get(side, {})
    return known.get(dtype) or {"constants": start_of(dtype)}


def shape_of(frame: pd.DataFrame) -> BatchedShape:
    """The shape of reference rows of one `op` and `dtype`, all of which have DeepSeek-V3's widths."""
    pre = SIDES[str(frame["op"].iloc[0])] == "pre"
    return BatchedShape(
        m=frame["tokens"].to_numpy(dtype=float), heads=frame["heads"].to_numpy(dtype=float),
        n=RANK if pre else NOPE, k=NOPE if pre else RANK, dtype=str(frame["dtype"].iloc[0]),
    )  # fmt: skip


def start_of(dtype: str) -> dict[str, float]:
    """The constants of a format before any fit."""
    return START | (QUANTISE_START if GEMM[dtype_of("gemm", dtype)].quantised else {})


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per side of attention and number format from reference rows of the two ops."""
    found: dict[str, Any] = {}
    for (op, dtype), rows in frame.groupby(["op", "dtype"], sort=True):
        measured_s = rows["latency_us"].to_numpy(dtype=float) * 1e-6
        name = dtype_of("gemm", str(dtype))
        found.setdefault(SIDES[str(op)], {})[name] = _fit_one(shape_of(rows), hardware, measured_s)
    return found


def _fit_one(shape: BatchedShape, hardware: Hardware, measured_s: Array) -> dict[str, Any]:
    return fit_kernel(
        lambda c: _skeleton(c, hardware, shape), _coordinates(hardware, shape), measured_s,
        start=start_of(shape.dtype), layout=LAYOUT, order=lambda c: _order(c, hardware, shape), hold=1e-3, rounds=30,
    )  # fmt: skip


def _arrays(hardware: Hardware, shape: BatchedShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(hardware, shape).items()}


def _order(constants: Mapping[str, float], hardware: Hardware, shape: BatchedShape) -> Order:
    """Pairs of kernels, the second with up to four times the rows or heads."""
    random, count = np.random.default_rng(0), 4_000
    bits = random.uniform(0.0, (15.0, 7.0), (count, 2))
    more = np.where(np.arange(2) == random.integers(0, 2, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    low, high = (
        replace(shape, m=m, heads=heads)
        for m, heads in (np.ceil(2.0**exponents).T for exponents in (bits, bits + more))
    )
    growth = np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low))
    return Order(low=_arrays(hardware, low), high=_arrays(hardware, high), least=-growth, weight=10.0)
