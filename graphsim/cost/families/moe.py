"""Fused mixture-of-experts blocks: route, permute, two grouped GEMMs with a gate between, combine.

    t = exp(surface) · ( launch + (weights³ + products³)^⅓ + token traffic )

weights: each expert that gets a token on the busiest device is read once; GEMMs: its rows, each
expert padded towards a tile; token traffic: the tokens in and out, their top-k copies, and the rows
between the GEMMs. The number of experts hit and the rows of the busiest device follow from the
router's distribution of tokens (`moe_work.py`).

The surface over tokens, experts per device, width, load per expert, skew, weight and GEMM time
corrects it. Never below the roofline of weights (less what the cache may hold) and GEMMs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s, measured_here
from graphsim.cost.families.formats import MOE, alike, dtype_of, peak_of, stored_bytes
from graphsim.cost.families.moe_work import MoeShape, busiest_rows, experts_hit, skew_of
from graphsim.cost.families.overlap import loosely_overlapped
from graphsim.cost.families.registry import ANY
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd


START = {"launch_s": 1.5e-5, "dram": 1.4, "product": 2.0, "pad_rows": 8.0, "tokens": 2.0, "copies": 0.5,
         "between": 0.5, "luck": 0.7}  # fmt: skip
"""Constants before any fit; see `_skeleton` for their meanings."""


def _expert_weights(shape: MoeShape) -> Num:
    return 3.0 * shape.hidden * shape.inter / shape.tp


def _least(hardware: Hardware, shape: MoeShape) -> tuple[Num, Num, Num]:
    """Weight bytes on an average device, tokens in and out in bytes, and the time of the GEMMs at peak."""
    held = np.maximum(experts_hit(shape) / shape.ep, np.minimum(1.0, shape.experts / shape.ep))
    weights = held * _expert_weights(shape) * shape.w_bytes
    flops = 2.0 * shape.m * shape.topk / shape.ep * shape.busiest * _expert_weights(shape)
    return weights, 2.0 * shape.x_bytes * shape.m * shape.hidden, flops / peak_of(hardware, shape.formats.rates)


def roofline_s(hardware: Hardware, shape: MoeShape) -> Num:
    """The bare datasheet roofline: GEMMs at peak or bytes at memory bandwidth, whichever is longer."""
    weights, tokens, products_s = _least(hardware, shape)
    return np.maximum(products_s, (weights + tokens) / hardware.memory_bytes_per_s)


def floor_s(hardware: Hardware, shape: MoeShape) -> Num:
    """A physical lower bound: weights that fit the cache may come at up to five times the memory's rate."""
    weights, _, products_s = _least(hardware, shape)
    share = np.clip(0.2 + 8.0 * (weights / np.maximum(hardware.cache_bytes, 1.0) - 1.0), 0.2, 1.0)
    return np.maximum(products_s, share * weights / hardware.memory_bytes_per_s)


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: MoeShape) -> Num:
    """dram, GEMM: times the datasheet's time of the weights and of the GEMMs
    pad_rows: padding rows per hit expert; luck: spread of the experts hit per device, in standard deviations
    tokens, copies, between: passes over tokens, over their top-k copies, and over the rows between the GEMMs
    """
    held, mean = shape.experts / shape.ep, experts_hit(shape) / shape.ep
    spread = c["luck"] * np.sqrt(mean * np.log(shape.ep)) if skew_of(shape.distribution) else 0.0
    hit = np.maximum(np.minimum(mean + spread, held), np.minimum(1.0, held))
    rows = np.maximum(busiest_rows(shape), hit)
    weights_s = c["dram"] * hit * _expert_weights(shape) * shape.counted_bytes / hardware.memory_bytes_per_s
    padded = (rows + c["pad_rows"] * hit) * 2.0 * _expert_weights(shape)
    products_s = c["product"] * padded / peak_of(hardware, shape.formats.rates)
    passes = (c["tokens"] + c["copies"] * shape.topk) * shape.m * shape.hidden
    passes = passes + c["between"] * rows * (4.0 * shape.inter / shape.tp + 3.0 * shape.hidden)
    passes_s = shape.x_bytes * passes / hardware.memory_bytes_per_s
    return c["launch_s"] + loosely_overlapped(weights_s, products_s) + passes_s


def _coordinates(hardware: Hardware, shape: MoeShape) -> dict[str, Num]:
    """log2 of sizes and of microseconds; the skew unchanged; a device as busy as the mean, as in the measurements."""
    if shape.hit is not None:
        shape = replace(shape, hit=np.minimum(shape.hit, experts_hit(replace(shape, hit=None))))
    shape = replace(shape, busiest=1.0)
    weights, _, _ = _least(hardware, shape)
    products_s = busiest_rows(shape) * 2.0 * _expert_weights(shape) / peak_of(hardware, shape.formats.rates)
    return {
        "tokens": np.log2(shape.m),
        "held": np.log2(shape.experts / shape.ep),
        "width": np.log2(shape.inter / shape.tp),
        "hidden": np.log2(shape.hidden),
        "load": np.log2(shape.m * shape.topk / shape.experts),
        "skew": skew_of(shape.distribution) + 0.0 * shape.m,
        "weights": np.log2(weights * (shape.counted_bytes / shape.w_bytes) / hardware.memory_bytes_per_s * 1e6),
        "products": np.log2(products_s * 1e6),
    }


LAYOUT = SurfaceSpec(
    knots={
        "tokens": [*range(15), 16.0], "held": [float(x) for x in range(10)], "width": [float(x) for x in range(4, 15)],
        "hidden": [11, 11.5, 12, 12.33, 12.6, 12.8], "load": [-9, -6, *range(-4, 13)], "skew": [0, 1.01, 1.2],
        "weights": [float(x) for x in range(-6, 13)], "products": [float(x) for x in range(-8, 15)],
    },
    terms=[("tokens", "held"), ("tokens", "width"), ("load", "skew"), ("hidden", "width"), ("weights", "skew"),
           ("products", "skew")],
    flat=0.1,
)  # fmt: skip


LEVELS = (MOE, ANY)
SURFACES = (LAYOUT,)
STREAMED = 0.94
"""Largest share of the memory's rate at which blocks with gated experts read: 0.92 on H100, 0.94 on H200, with 15 us
or more to start them. Surfaces extrapolate beyond that where no measured model has this combination of hidden size and
width (Mixtral 8x7B)."""


def needed(dtype: str, kernel: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: MoeShape) -> Num:
    """Seconds of one block on the busiest device, from fitted `parameters` (of `fit`); no tokens, no time.

    A format without a fit borrows the constants, not the surface, of the nearest one that has it; an unnamed or
    unknown kernel is treated as the format's most measured one. Formats that the matrix units lack and without
    measurements run with 16-bit activations, as in GEMMs. Raises ConfigError for unknown names.
    """
    name, formats = dtype_of("moe", shape.dtype), shape.formats
    if formats.weight_only and formats.lacking(hardware) and not measured_here(parameters, name):
        shape = replace(shape, dtype=formats.weight_only, weight_bytes=shape.w_bytes)
    entry = entry_of(parameters, (dtype_of("moe", shape.dtype),), lambda one: _entry(one, shape))
    least = ("m", "hidden", "inter", "topk", "experts", "tp", "ep")
    safe = replace(shape, **{name: np.maximum(getattr(shape, name), 1.0) for name in least})
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, safe), lambda: _coordinates(hardware, safe))
    work = shape.m * shape.topk * shape.experts
    weights, _, _ = _least(hardware, safe)
    share = np.clip(weights / np.maximum(hardware.cache_bytes, 1.0) - 1.0, 0.0, 1.0)
    streamed_s = share * (START["launch_s"] + weights / (STREAMED * hardware.memory_bytes_per_s))
    least_s = np.maximum(floor_s(hardware, safe), streamed_s)
    return np.where(np.greater(work, 0), np.maximum(time, least_s), 0.0)


def _entry(parameters: Mapping[str, Any], shape: MoeShape) -> KernelFit:
    """The fit of a format and kernel, else only the constants of the most similar format."""
    name = dtype_of("moe", shape.dtype)
    if name in parameters:
        return _of_kernel(parameters[name], shape.kernel)
    other = next((other for other in alike(MOE, name) if other in parameters), "")
    return {"constants": _of_kernel(parameters[other], shape.kernel)["constants"] if other else START}


def _of_kernel(known: Mapping[str, KernelFit], kernel: str) -> KernelFit:
    return known.get(kernel) or next(iter(known.values()))


def shape_of(frame: pd.DataFrame) -> MoeShape:
    """The shape of reference rows of one `dtype`, `distribution` and, where stated, `kernel`."""
    names = ("m", "hidden", "inter", "topk", "experts")
    numbers: dict[str, Any] = {name: frame[name].to_numpy(dtype=float) for name in names}
    degrees = {name: frame[name].fillna(1).to_numpy(dtype=float) for name in ("tp", "ep") if name in frame.columns}
    kernel = frame["kernel"].iloc[0] if "kernel" in frame.columns else ""
    dtype = str(frame["dtype"].iloc[0])
    return MoeShape(
        **numbers | degrees, dtype=dtype_of("moe", dtype), weight_bytes=stored_bytes("moe", dtype),
        distribution=str(frame["distribution"].iloc[0]), kernel=kernel if isinstance(kernel, str) else "",
    )  # fmt: skip


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per weight format and kernel, the most measured kernel of a format first."""
    names = frame["dtype"].map(lambda dtype: dtype_of("moe", str(dtype)))
    kernels = frame["kernel"].fillna("") if "kernel" in frame.columns else names.map(lambda name: "")
    found: dict[str, Any] = {}
    for name in [name for name in MOE if (names == name).any()]:
        counts = kernels[names == name].value_counts()
        order = sorted(counts.index, key=lambda kernel: (-counts[kernel], kernel))
        found[name] = {kernel: _fit_one(frame[(names == name) & (kernels == kernel)], hardware) for kernel in order}
    return found


def _fit_one(rows: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    groups = [part for _, part in rows.groupby("distribution", sort=True)]
    shapes = [shape_of(part) for part in groups]
    measured_s = np.concatenate([part["latency_us"].to_numpy(dtype=float) for part in groups]) * 1e-6
    step = max(1, len(rows) // 4000)
    some = [_every(shape, step) for shape in shapes]
    some_s = np.concatenate([part["latency_us"].to_numpy(dtype=float)[::step] for part in groups]) * 1e-6
    constants = fit_constants(
        lambda c: np.concatenate([np.asarray(_skeleton(c, hardware, shape)) for shape in some]), START,
        np.log(some_s), hold=3e-4, rounds=40,
    )  # fmt: skip
    skeleton = np.concatenate([np.asarray(_skeleton(constants, hardware, shape)) for shape in shapes])
    order = _order(constants, hardware, shapes[0].dtype)
    surface = fit_surface(LAYOUT, _arrays(hardware, shapes), np.log(measured_s / skeleton), order=order, rounds=8)
    return {"constants": constants, "surface": surface.to_json()}


def _arrays(hardware: Hardware, shapes: Sequence[MoeShape]) -> dict[str, Array]:
    parts = [_coordinates(hardware, shape) for shape in shapes]
    return {key: np.concatenate([np.asarray(part[key], dtype=float) for part in parts]) for key in parts[0]}


def _order(constants: Mapping[str, float], hardware: Hardware, dtype: str) -> Order:
    """Pairs of blocks, the second with up to four times the tokens or width, from one token to 2²⁰."""
    lows, highs, growths = [], [], []
    for seed, distribution in enumerate(("balanced", "power_law_1.01", "power_law_1.2")):
        random, count = np.random.default_rng(seed), 2_000
        bits = random.uniform((0.0, 11.0, 8.0, 3.0, 0.0), (20.0, 13.0, 14.0, 9.0, 1.0), (count, 5))
        more = np.where(np.arange(5) == random.choice([0, 2], (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
        topk = random.choice([1.0, 2.0, 4.0, 8.0], count)
        low, high = (
            MoeShape(m=m, hidden=hidden, inter=inter, experts=experts, topk=topk, ep=2.0 ** np.floor(share * 4.0),
                     dtype=dtype, distribution=distribution)
            for m, hidden, inter, experts, share in (
                (*np.ceil(2.0 ** sides[:, :4].T), sides[:, 4]) for sides in (bits, bits + more))
        )  # fmt: skip
        growths.append(np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low)))
        lows.append(low)
        highs.append(high)
    return Order(low=_arrays(hardware, lows), high=_arrays(hardware, highs), least=-np.concatenate(growths))


def _every(shape: MoeShape, step: int) -> MoeShape:
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    chosen: dict[str, Any] = {name: value[::step] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(shape, **chosen)
