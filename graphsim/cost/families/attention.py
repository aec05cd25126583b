"""Attention kernels: prefill (many queries per request) and decode (one query per request).

Prefill works on tiles of 128 queries of one head, which run in waves over the cores; decode reads
the cached keys and values, one block of work per request and key head, the keys split over several
blocks where cores would idle. Bytes, flops, waves and launches make the skeleton; a fitted surface
over keys, waves, group size, head size, window and cache fill corrects it.

    prefill  t = exp(surface) · ( launch + queries, outputs / bandwidth + keys, values / bandwidth
                                  + waves · tile ),   waves = (tiles³ + whole³)^⅓
    decode   t = exp(surface) · ( launch + bytes / bandwidth + blocks / cores · block + depth · log2 keys )

and never below the roofline: flops at peak, and memory bandwidth for what the cache cannot hold.
Some decode kernels (FlashAttention 2, `flash_attn_varlen` with a window or with as many key heads as
heads) give every query head a block of its own and do not split the keys; where the measurements show
that, such shapes have constants and a surface of their own (`single`). Others start the same number of blocks
for each request whether or not it has keys for them (`split`).

References: Dao, "FlashAttention-2" (arXiv 2307.08691), section 3; Dao et al., "Flash-Decoding", 2023;
the surface is `cost/surfaces/surface.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.attention_skeletons import (
    PARTS,
    SKELETONS,
    START,
    TILE_QUERIES,
    WIDEST_DIM,
    keys_of,
)
from graphsim.cost.families.attention_work import (
    AttentionShape,
    attended_pairs,
    floor_s,
    kv_bytes,
    query_bytes,
    roofline_s,
)
from graphsim.cost.families.blend import Blend, KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import ATTENTION, dtype_of, stored_bytes
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

PHASES = {"context_attention": "prefill", "generation_attention": "decode"}
"""The phase of each measured op."""

__all__ = ["AttentionShape", "fit", "floor_s", "latency_s", "roofline_s", "shape_of"]

FEWEST_ROWS = 30
"""Measurements from which on a part is fitted."""


def _coordinates(kind: str, hardware: Hardware, shape: AttentionShape) -> dict[str, Num]:
    """log2 of physical sizes; a block is a unit of work of one core."""
    one = kind == "single"
    everything = attended_pairs(shape.seq_len, shape.kv_len, 0.0)
    pairs = attended_pairs(shape.seq_len, shape.kv_len, shape.window)
    blocks = shape.batch * np.where(one, shape.heads, shape.kv_heads)
    fill = kv_bytes(shape) if kind != "prefill" else kv_bytes(shape) + query_bytes(shape)
    keys = keys_of(shape)
    if kind == "prefill":
        blocks = shape.batch * np.where(np.greater(shape.seq_len, 1.0), shape.heads, shape.kv_heads)
        blocks = blocks * np.ceil(shape.seq_len / TILE_QUERIES)
        keys = np.maximum(2.0 * everything / shape.seq_len - 1.0, 1.0)
    return {
        "keys": np.log2(keys),
        "waves": np.log2(blocks / hardware.cores),
        "group": np.log2(shape.heads / shape.kv_heads * np.where(one, 0.0, 1.0) + np.where(one, 1.0, 0.0)),
        "sharing": np.log2(shape.heads / shape.kv_heads),
        "dim": np.log2(shape.head_dim),
        "cut": np.where(np.greater(shape.window, 0), np.log2(everything / pairs), 0.0),
        "fill": np.log2(fill / np.maximum(hardware.cache_bytes, 1.0)),
        "batch": np.log2(shape.batch),
        "key heads": np.log2(shape.kv_heads),
    }


_KNOTS = {
    "waves": [*range(-8, 10), 11.0, 13.0], "group": [0, 1, 2, 3, 4, 5, 6], "dim": [6, 7, 7.58, 8, 9],
    "cut": [0, 0.01, 1, 2, 4, 8, 10], "fill": [-10, -6, -4, -3, -2, -1, 0, 1, 2, 4, 8], "batch": [0, 1, 2, 4],
    "sharing": [0, 1, 2, 3, 4, 6], "key heads": [0, 1, 3],
}  # fmt: skip
_DECODE = SurfaceSpec(
    knots=_KNOTS | {"keys": [1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17], "waves": [float(x) for x in range(-8, 9)]},
    terms=[("keys", "waves"), ("waves", "group"), ("keys", "group"), ("keys", "dim"), ("waves", "dim"),
           ("cut", "waves"), ("fill", "waves"), ("batch", "sharing"), ("batch", "key heads")],
    flat=0.1,
)  # fmt: skip
_PREFILL = SurfaceSpec(
    knots=_KNOTS | {"keys": [0, 4, 6, 7, 8, 9, 10, 10.58, 11, 12, 13, 14]},
    terms=[("keys", "waves"), ("waves", "group"), ("keys", "group"), ("keys", "dim"), ("waves", "dim"),
           ("cut", "keys"), ("cut", "waves"), ("cut", "dim"), ("fill",)],
    flat=0.1,
)  # fmt: skip
LAYOUTS = {"prefill": _PREFILL, "decode": _DECODE, "single": _DECODE, "split": _DECODE}
"""The coordinates of each correction table, and their knots (log2 units). Those that grow with the context come
first, so that look-ups along the context evaluate the others once."""


LEVELS = (tuple(PHASES.values()), ATTENTION)
SURFACES = tuple(LAYOUTS.values())


def needed(phase: str, kv_dtype: str, part: str = "") -> Collection[str]:
    """Names of the constants of a fit, or of one of its PARTS."""
    return START[part or phase]


def _apply(kind: str, entry: KernelFit, hardware: Hardware, shape: AttentionShape) -> Num:
    skeleton = SKELETONS[kind]
    return fitted_s(entry, lambda c: skeleton(c, hardware, shape), lambda: _coordinates(kind, hardware, shape))


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: AttentionShape) -> Num:
    """Seconds of one attention kernel, from fitted `parameters` (of `fit`); no requests, no time.

    A cache format that was not measured takes the constants and surface of another one; heads so wide that no kernel
    was measured with its format, those of another format's `split` part. Other generations run other kernels, whose
    blocks without keys are not known.
    Raises ConfigError for an unknown phase or cache format.
    """
    if shape.phase not in PHASES.values():
        raise ConfigError(f"phase '{shape.phase}' is not known; {choices_text(shape.phase, PHASES.values())}")
    safe = _at_least_one(shape)
    key = shape.phase, dtype_of("attention", shape.kv_dtype)
    entry = entry_of(parameters, key, lambda one: _entry(one, *key))
    parts = [name for name in PARTS if name != "split" or not isinstance(parameters, Blend)]
    time = _measured_s(shape.phase, entry, hardware, safe, parts)
    work = shape.batch * shape.seq_len * shape.heads * shape.kv_len
    return np.where(np.greater(work, 0), np.maximum(time, floor_s(hardware, safe)), 0.0)


def _entry(parameters: Mapping[str, Any], phase: str, kv_dtype: str) -> KernelFit:
    known: Mapping[str, KernelFit] = parameters.get(phase, {})
    wider = "fp8_queries" if kv_dtype == "fp8" else ATTENTION[kv_dtype].like
    names = [name for name in (kv_dtype, wider, ATTENTION[kv_dtype].like, *known) if name in known]
    if not names:
        return {"constants": START[phase]}
    wide = next((known[name]["split"] for name in names if "split" in known[name]), None)
    return known[names[0]] if wide is None else {**known[names[0]], "split": wide}


def _measured_s(phase: str, entry: KernelFit, hardware: Hardware, shape: AttentionShape, parts: Sequence[str]) -> Num:
    part, *others = (name for name in (*parts, "") if name in entry or not name)
    if not part:
        return _apply(phase, entry, hardware, shape)
    applies = PARTS[part](shape)
    own = partial(_apply, part, entry[part], hardware, shape)
    usual = partial(_measured_s, phase, entry, hardware, shape, others[:-1])
    if isinstance(applies, bool | np.bool_):
        return own() if applies else usual()
    return np.where(applies, own(), usual())


def _at_least_one(shape: AttentionShape) -> AttentionShape:
    one = {
        name: np.maximum(getattr(shape, name), 1.0)
        for name in ("batch", "seq_len", "kv_len", "heads", "kv_heads", "head_dim")
    }
    return replace(shape, **one)


def _rows(shape: AttentionShape, chosen: Any) -> AttentionShape:
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    return AttentionShape(**{k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in values.items()})


def shape_of(frame: pd.DataFrame) -> AttentionShape:
    """The shape of reference rows of one `op`, `kv_dtype` and, where stated, `dtype`."""
    names = ("batch", "seq_len", "kv_len", "heads", "kv_heads", "head_dim")
    numbers: dict[str, Any] = {name: frame[name].to_numpy(dtype=float) for name in names}
    window = frame["window"].fillna(0).to_numpy(dtype=float) if "window" in frame.columns else 0.0
    kv_dtype = str(frame["kv_dtype"].iloc[0])
    return AttentionShape(
        **numbers, window=window, kv_dtype=_key(str(frame["dtype"].iloc[0]) if "dtype" in frame else "", kv_dtype),
        cached_bytes=stored_bytes("attention", kv_dtype), phase=PHASES[str(frame["op"].iloc[0])],
    )  # fmt: skip


def _key(dtype: str, kv_dtype: str) -> str:
    """The name of a fit, from the formats of queries and cache."""
    name = dtype_of("attention", kv_dtype)
    return "fp8_queries" if name == "fp8" and dtype.startswith("fp8") else name


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per phase and cache format from reference rows of the two attention ops."""
    found: dict[str, Any] = {}
    for (op, _, _), rows in frame.groupby(["op", "kv_dtype", "dtype"], sort=True):
        shape, measured_s = shape_of(rows), rows["latency_us"].to_numpy(dtype=float) * 1e-6
        phase = PHASES[str(op)]
        parts = tuple(PARTS) if phase == "decode" else ()
        entry = _fit_parts(phase, hardware, shape, measured_s, parts)
        found.setdefault(phase, {})[shape.kv_dtype] = entry
    return found


def _fit_one(kind: str, hardware: Hardware, shape: AttentionShape, measured_s: Array) -> dict[str, Any]:
    skeleton = SKELETONS[kind]
    some = slice(None, None, max(1, len(measured_s) // 4000))
    constants = fit_constants(
        lambda c: np.asarray(skeleton(c, hardware, _rows(shape, some))), START[kind], np.log(measured_s[some]),
        hold=3e-4, rounds=40,
    )  # fmt: skip
    target = np.log(measured_s / skeleton(constants, hardware, shape))
    coordinates = _arrays(kind, hardware, shape)
    order = _order(kind, constants, hardware, shape.kv_dtype)
    surface = fit_surface(LAYOUTS[kind], coordinates, target, order=order, rounds=10)
    return {"constants": constants, "surface": surface.to_json()}


def _arrays(kind: str, hardware: Hardware, shape: AttentionShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(kind, hardware, shape).items()}


def _order(kind: str, constants: Mapping[str, float], hardware: Hardware, kv_dtype: str) -> Order:
    """Pairs of kernels, the second with up to four times the requests, keys, group size, or heads of both kinds."""
    random, count = np.random.default_rng(0), 12_000
    bits = random.uniform(0.0, (11.0, 20.0, 6.0, 6.0), (count, 4))
    head_dim, window = (
        random.choice([64.0, 128.0, 256.0], count),
        random.choice([0.0, 0.0, 128.0, 1024.0, 8192.0], count),
    )
    if kind == "split":
        head_dim, window = np.full(count, 2.0 * WIDEST_DIM), np.zeros(count)
    more = np.where(np.arange(4) == random.integers(0, 4, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    shapes = []
    for batch, keys, kv_heads, group in (np.ceil(2.0**exponents).T for exponents in (bits, bits + more)):
        shapes.append(AttentionShape(
            batch=batch, kv_len=keys, seq_len=keys if kind == "prefill" else 1.0, heads=kv_heads * group,
            kv_heads=kv_heads, head_dim=head_dim, window=window, kv_dtype=kv_dtype,
        ))  # fmt: skip
    low, high = shapes
    growth = np.log(SKELETONS[kind](constants, hardware, high) / SKELETONS[kind](constants, hardware, low))
    return Order(low=_arrays(kind, hardware, low), high=_arrays(kind, hardware, high), least=-growth, weight=30.0)


def _fit_parts(
    kind: str, hardware: Hardware, shape: AttentionShape, measured_s: Array, parts: Sequence[str]
) -> dict[str, Any]:
    """A fit with each of `parts` apart whose shapes then err less by a quarter."""
    entry = _fit_one(kind, hardware, shape, measured_s)
    for at, part in enumerate(parts):
        inside = np.asarray(PARTS[part](shape)) & np.ones(len(measured_s), dtype=bool)
        if inside.sum() < FEWEST_ROWS or (~inside).sum() < FEWEST_ROWS:
            continue
        within, seconds = _rows(shape, inside), measured_s[inside]
        own = _fit_one(part, hardware, within, seconds)
        errors = [
            np.median(np.abs(np.log(np.asarray(_apply(name, tried, hardware, within)) / seconds)))
            for name, tried in ((kind, entry), (part, own))
        ]
        if errors[1] < 0.75 * errors[0]:
            rest = _fit_parts(kind, hardware, _rows(shape, ~inside), measured_s[~inside], parts[at + 1 :])
            return rest | {part: own}
    return entry
