"""GEMMs x[m,k] @ w[k,n]: tiles, waves, bytes, launches, and a fitted correction.

The kernel is the fastest of a few tile sizes and split-k factors, as an autotuner would choose it.
A tile of a×b outputs costs its flops at the peak of one core, or the loading of its operands, and
an epilogue; tiles run in waves over the cores. The traffic to memory runs at the same time, or to the
last-level cache as far as the operands stay there between calls. Before it come a launch, the quantisation for formats
narrower than the activations, and in eager mode the host's time per call.

    t = exp(surface) · ( (compute⁴ + memory⁴)^¼ + launch + quantise ),   never below the roofline

References: tile and wave quantisation as in "Matrix Multiplication Background User's Guide", NVIDIA
DU-09799; split-k as in CUTLASS, `media/docs/efficient_gemm.md`; the surface is `cost/surfaces/surface.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s, measured_here
from graphsim.cost.families.elementwise import cached_floor_s, traffic_s
from graphsim.cost.families.formats import GEMM, Dtype, dtype_of, peak_of, stored_bytes
from graphsim.cost.families.overlap import overlapped
from graphsim.cost.families.tiles import Operands, fastest_s, fastest_tile
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

START = {
    "compute": 1.2, "small_tile": 0.1, "wave": 1.0, "load_bytes_per_clock": 60.0, "epilogue_clocks": 0.03,
    "step_clocks": 0.15, "split_clocks": 2500.0, "split_bytes": 1.2, "dram": 1.2, "cache": 0.7, "cache_fit": 0.7,
    "cache_edge": 4.0, "launch_clocks": 4500.0,
}  # fmt: skip
"""Constants before any fit, of a plain H100 kernel: see `tiles.py` and `traffic_s` for what each one is."""

QUANTISE_START = {"quantise_clocks": 4000.0, "quantise_bytes": 5.0, "quantise_row_clocks": 5.0}
HOST_START = {"host_small_s": 6e-5, "host_s": 9e-5, "host_odd_s": 1.7e-4, "host_pad_s": 1e-5}


def start_of(dtype: str) -> dict[str, float]:
    """The constants of a format before any fit."""
    name = dtype_of("gemm", dtype)
    quantise = QUANTISE_START if GEMM[name].quantised else {}
    return START | quantise | (HOST_START if name == "fp8_block" else {})


@dataclass(frozen=True, kw_only=True)
class GemmShape:
    """x[m,k] @ w[k,n] in one number format; `eager` counts the host's time per call where one was measured.

    weight_bytes: per weight, scales included; None for the layout that the dtype names
    activation_bytes: per number of inputs and results; None for that of the dtype's kernels
    quantised_ahead: whether x comes quantised from the previous kernel
    """

    family: ClassVar[str] = "gemm"

    m: Num
    n: Num
    k: Num
    dtype: str = "bfloat16"
    eager: bool = False
    weight_bytes: float | None = None
    activation_bytes: float | None = None
    quantised_ahead: bool = False

    @property
    def formats(self) -> Dtype:
        """Formats of the operands and matrix rate for the dtype. Raises ConfigError for an unknown one."""
        return GEMM[dtype_of("gemm", self.dtype)]

    @property
    def w_bytes(self) -> float:
        """Bytes per weight."""
        return stored_bytes("gemm", self.dtype) if self.weight_bytes is None else self.weight_bytes

    @property
    def x_bytes(self) -> float:
        """Bytes per number of x as the GEMM reads it: quantised, or in its original format."""
        return self.formats.inputs.bytes if self.formats.quantised else self.y_bytes

    @property
    def y_bytes(self) -> float:
        """Bytes per number of the result."""
        return self.formats.activation_bytes if self.activation_bytes is None else self.activation_bytes

    @cached_property
    def moved_bytes(self) -> Num:
        """Operands read once and results written once, in bytes."""
        return self.w_bytes * self.k * self.n + (self.x_bytes * self.k + self.y_bytes * self.n) * self.m


def floor_s(hardware: Hardware, shape: GemmShape) -> Num:
    """A physical lower bound: peak flops, and memory bandwidth for what the cache cannot hold."""
    return np.maximum(_flops_s(hardware, shape), cached_floor_s(hardware, shape.moved_bytes))


def _flops_s(hardware: Hardware, shape: GemmShape) -> Num:
    return 2.0 * shape.n * shape.k / peak_of(hardware, shape.formats.rates) * shape.m


def roofline_s(hardware: Hardware, shape: GemmShape) -> Num:
    """The bare datasheet roofline: flops at peak or bytes at memory bandwidth, whichever is longer."""
    return np.maximum(_flops_s(hardware, shape), shape.moved_bytes / hardware.memory_bytes_per_s)


def _device_s(c: Mapping[str, float], hardware: Hardware, shape: GemmShape) -> Num:
    operands = Operands(x_bytes=shape.x_bytes, w_bytes=shape.w_bytes, rates=shape.formats.rates)
    kernel = fastest_s(c, hardware, operands, shape.m, shape.n, shape.k)
    memory = traffic_s(c, hardware, shape.moved_bytes)
    time = overlapped(kernel, memory) + c["launch_clocks"] / hardware.clock_hz
    if "quantise_clocks" in c and not shape.quantised_ahead:
        row_s = (
            c["quantise_bytes"] / hardware.memory_bytes_per_s * shape.k + c["quantise_row_clocks"] / hardware.clock_hz
        )
        time = time + c["quantise_clocks"] / hardware.clock_hz + row_s * shape.m
    return time


def _host_s(c: Mapping[str, float], shape: GemmShape) -> Num:
    """Host time per call of a block-scaled GEMM: few rows, many rows, or a shape the fast kernels refuse.

    vLLM sends n % 64 = 0 and k % 128 = 0 to DeepGEMM (on Hopper below 32 rows to FlashInfer) and all else
    to CUTLASS (`vllm/utils/deep_gemm.py`, should_use_deepgemm_for_fp8_linear). If the rows are not a multiple of 4,
    their scales are padded for the copy engine, which costs further launches.
    """
    even = (np.mod(shape.n, 64) == 0) & (np.mod(shape.k, 128) == 0)
    padded = np.where((np.mod(shape.m, 4) > 0) & np.greater(shape.k, 128), c["host_pad_s"], 0.0)
    fast = np.where(np.less(shape.m, 32), c["host_small_s"], c["host_s"])
    return np.where(even, fast + padded, c["host_odd_s"])


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: GemmShape) -> Num:
    device = _device_s(c, hardware, shape)
    if shape.eager and "host_s" in c:
        return overlapped(device, _host_s(c, shape))
    return device


def _coordinates(hardware: Hardware, shape: GemmShape) -> dict[str, Num]:
    m, n, k = np.log2(shape.m), np.log2(shape.n), np.log2(shape.k)
    waves = m + n - (14.0 + np.log2(hardware.cores))
    tiles = np.ceil(shape.m / 128.0) * (np.ceil(shape.n / 256.0) / hardware.cores)
    return {
        "m": m, "n": n, "k": k, "m coarse": m, "n coarse": n, "k coarse": k,
        "waves": waves, "waves coarse": waves, "idle": np.log2(np.ceil(tiles) / tiles),
        "cached": np.log2(shape.moved_bytes / np.maximum(hardware.cache_bytes, 1.0)),
    }  # fmt: skip


_SIDES = [32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288,
          16384, 32768, 65536]  # fmt: skip
_ROWS = [1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192, 32768]
_COARSE = [5, 6.5, 8, 9.5, 11, 12.5, 14, 16]
LAYOUT = SurfaceSpec(
    knots={
        "m": np.log2(_ROWS).tolist(), "n": np.log2(_SIDES).tolist(), "k": np.log2(_SIDES).tolist(),
        "m coarse": [0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 15], "n coarse": _COARSE, "k coarse": _COARSE,
        "waves": [*range(-12, -2), *np.arange(-2.0, 4.0, 0.5).tolist(), *range(4, 13)],
        "waves coarse": [*range(-2, 5)], "idle": [0, 0.1, 0.2, 0.4, 0.7, 1],
        "cached": np.arange(-13.0, 9.1, 1.0).tolist(),
    },
    terms=[("m", "n"), ("m", "waves"), ("waves", "k"), ("m", "cached"), ("cached", "n"),
           ("m coarse", "n coarse", "k coarse"), ("waves coarse", "idle")],
    smooth=0.2, ridge=0.1, slopes=True,
)  # fmt: skip
"""Coordinates are log2 of the tokens, of n and k, of 128 × 128 tiles per core, of the last wave of 128 × 256 tiles
over its filled part, and of bytes over cache size; knots lie at the sizes of models."""


CAPTURED = "fp8_block captured"
"""The fit of block-scaled GEMMs inside a captured graph, from measurements of the same library's kernels.

vLLM's were measured as eager calls that wait for the host; SGLang's DeepGEMM without one.
"""

LEVELS = ((*GEMM, CAPTURED),)
SURFACES = (LAYOUT,)


def needed(dtype: str) -> Collection[str]:
    """Names of the constants of a format's fit."""
    return START | QUANTISE_START if dtype == CAPTURED else start_of(dtype)


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: GemmShape) -> Num:
    """Seconds of one GEMM, from fitted `parameters` (of `fit`); no rows, no time.

    Raises ConfigError for an unknown format. Formats without a fit borrow the constants, not the
    surface, of the nearest one that has it; formats that the matrix units lack and without measurements run
    with 16-bit activations, as vLLM's Marlin kernels do.
    """
    entry, safe = _fitted(parameters, hardware, shape)
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, safe), lambda: _coordinates(hardware, safe))
    work = np.minimum(np.minimum(shape.m, shape.n), shape.k)
    return np.where(np.greater(work, 0), np.maximum(time, floor_s(hardware, safe)), 0.0)


def tile_of(parameters: Mapping[str, Any], hardware: Hardware, shape: GemmShape) -> tuple[float, float, float] | None:
    """Rows and columns of the output tile and the split of k that the price of one GEMM selects as the fastest.

    None for a blend of several devices' fits, which has several. Raises ConfigError as `latency_s` does.
    """
    entry, safe = _fitted(parameters, hardware, shape)
    each = entry["each"] if "each" in entry else (entry["constants"],)
    if len(each) > 1:
        return None
    operands = Operands(x_bytes=safe.x_bytes, w_bytes=safe.w_bytes, rates=safe.formats.rates)
    return fastest_tile(each[0], hardware, operands, safe.m, safe.n, safe.k)


def _fitted(parameters: Mapping[str, Any], hardware: Hardware, shape: GemmShape) -> tuple[KernelFit, GemmShape]:
    """The fit that prices a shape, and the priced shape, with at least one row, column and input."""
    name, formats = dtype_of("gemm", shape.dtype), shape.formats
    if formats.weight_only and formats.lacking(hardware) and not measured_here(parameters, name):
        name, shape = formats.weight_only, replace(shape, dtype=formats.weight_only, weight_bytes=shape.w_bytes)
    if name == "fp8_block" and not shape.eager and CAPTURED in parameters:
        entry: KernelFit = parameters[CAPTURED]
    else:
        entry = entry_of(parameters, (name,), lambda one: _entry(one, name))
    safe = replace(shape, m=np.maximum(shape.m, 1.0), n=np.maximum(shape.n, 1.0), k=np.maximum(shape.k, 1.0))
    return entry, safe


def _entry(parameters: Mapping[str, Any], dtype: str) -> KernelFit:
    """The fit of a format, else only the constants of the most similar one."""
    if dtype in parameters:
        entry: KernelFit = parameters[dtype]
        return entry
    while dtype := GEMM[dtype].like:
        if dtype in parameters:
            return {"constants": parameters[dtype]["constants"]}
    return {"constants": START}


def shape_of(frame: pd.DataFrame) -> GemmShape:
    """The shape of reference rows of one `dtype`; measured rows are eager calls."""
    m, n, k = (frame[name].to_numpy(dtype=float) for name in ("m", "n", "k"))
    return GemmShape(m=m, n=n, k=k, dtype=str(frame["dtype"].iloc[0]), eager=True)


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per number format from reference rows of op `gemm`."""
    found: dict[str, Any] = {}
    names = frame["dtype"].map(lambda dtype: dtype_of("gemm", str(dtype)))
    for name in [name for name in GEMM if (names == name).any()]:
        rows = frame[names == name]
        start = dict(_entry(found, name)["constants"])
        found[name] = _fit_one(shape_of(rows), hardware, rows["latency_us"].to_numpy(dtype=float) * 1e-6, start)
    return found


def _fit_one(shape: GemmShape, hardware: Hardware, measured_s: Array, start: dict[str, float]) -> dict[str, Any]:
    start = start_of(shape.dtype) | start
    every = slice(None, None, max(1, len(measured_s) // 4000))
    m, n, k = (np.asarray(side, dtype=float) for side in (shape.m, shape.n, shape.k))
    some = GemmShape(m=m[every], n=n[every], k=k[every], dtype=shape.dtype, eager=True)
    constants = fit_constants(
        lambda c: np.asarray(_skeleton(c, hardware, some)), start, np.log(measured_s[every]), hold=3e-4, rounds=40
    )
    target = np.log(measured_s / _skeleton(constants, hardware, shape))
    order = _order(constants, hardware, shape.dtype)
    surface = fit_surface(LAYOUT, _arrays(hardware, shape), target, order=order, rounds=8)
    return {"constants": constants, "surface": surface.to_json()}


def _arrays(hardware: Hardware, shape: GemmShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(hardware, shape).items()}


def _order(constants: Mapping[str, float], hardware: Hardware, dtype: str) -> Order:
    """Pairs of GEMMs, the second up to four times as large in one dimension, from one to 2²⁰ in each."""
    parts = [_pairs(constants, hardware, dtype, seed=0, eager=False)]
    if "host_s" in constants:  # whose steps at odd sizes are real
        parts.append(_pairs(constants, hardware, dtype, seed=1, eager=True))
    low = {key: np.concatenate([part[0][key] for part in parts]) for key in parts[0][0]}
    high = {key: np.concatenate([part[1][key] for part in parts]) for key in low}
    return Order(low=low, high=high, least=np.concatenate([part[2] for part in parts]), weight=8.0)


def _pairs(
    constants: Mapping[str, float], hardware: Hardware, dtype: str, *, seed: int, eager: bool
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    random = np.random.default_rng(seed)
    usual = random.uniform((-1.0, 5.0, 5.0), (16.0, 17.0, 17.0), (12_000, 3))
    bits = np.concatenate([usual, random.uniform(-1.0, 20.0, (12_000, 3))])
    which, growth = random.integers(0, 3, (len(bits), 1)), random.uniform(0.3, 2.0, (len(bits), 1))
    more = np.where(np.arange(3) == which, growth, 0.0)
    grain = np.array([4.0, 64.0, 128.0]) if eager else np.ones(3)
    low, high = (
        GemmShape(m=sides[:, 0], n=sides[:, 1], k=sides[:, 2], dtype=dtype, eager=eager)
        for sides in (np.maximum(np.round(2.0**exponents / grain), 1.0) * grain for exponents in (bits, bits + more))
    )
    shrinking = np.log(_skeleton(constants, hardware, low) / _skeleton(constants, hardware, high))
    return _arrays(hardware, low), _arrays(hardware, high), np.asarray(shrinking)
