"""Latent attention kernels: decompressed prefill, and absorbed decode over a latent that all heads share.

Prefill is attention with a key head for every head: tiles of 128 queries of one head, in waves over the cores. In
decode, one request has as many rows as heads times queries; a block of work serves a tile of them and walks the keys,
which several blocks share where cores would idle. Memory, matrix units and the walk overlap:

    prefill  t = exp(surface) · ( launch + queries, outputs / bandwidth + keys, values / bandwidth + waves · tile )
    decode   t = exp(surface) · ( launch + queries, outputs / bandwidth + blocks / cores · block + depth · log2 keys
                                  + ((latents / bandwidth)⁴ + (flops / peak)⁴)^¼ and the walk, overlapped )

and never below the roofline. The rows per tile determine how often latents are read and how much of the matrix units'
work is padding. Kernels differ here, and a fit chooses the tiling of `TILINGS` with the least error:

* 64 rows, FlashMLA (deepseek-ai/FlashMLA, docs: 64 query heads by 576 per block on Hopper) and FlashAttention 3
* 16 rows, Triton's grouped decode (SGLang, `triton_ops/decode_attention.py`, BLOCK_H = 16)
* 16 rows up to 32 and one wide tile above, TensorRT-LLM's generation kernels (flashinfer, `fmhaKernels.cuh`,
  selectMlaGenerationKernel: a low-latency kernel up to 32 heads, above them one of 64 rows on each of two cores)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.attention_work import attended_pairs
from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import ATTENTION, dtype_of, peak_of, stored_bytes
from graphsim.cost.families.mla_work import MlaShape, floor_s, flops_s, kv_bytes, query_bytes, roofline_s
from graphsim.cost.families.overlap import loosely_overlapped, overlapped
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops.formats import RATES
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

PHASES = {"context_mla": "prefill", "generation_mla": "decode"}
"""The phase of each measured op."""

__all__ = ["MlaShape", "borrowed", "fit", "floor_s", "latency_s", "measured_absorbed", "roofline_s", "shape_of"]

TILE_QUERIES = 128.0
WIDE_ROWS = 128.0
ABSORBED_TILE = 3.0
"""Tile time, in flops at one core's peak, above which a prefill kernel was run in absorbed form."""

CONVERTING_DRAM = 4.0
"""Multiple of the latents' traffic time above which a decode kernel converts the cache first."""

SERIAL_CLOCKS = 20.0
"""Clocks per key of a request alone on the device from which on one block walks all of its keys: 0.3 to 6 for kernels
that split them, 170 to 220 for TensorRT-LLM's fallback outside Hopper and the data-centre Blackwell."""

START = {
    "prefill": {"launch_s": 9e-6, "tile": 2.0, "tile_keys": 100.0, "whole": 0.5, "dram": 1.2},
    "decode": {"launch_s": 9e-6, "row_dram": 1.2, "dram": 1.2, "again": 0.3, "compute": 1.5, "block_clocks": 2000.0,
               "depth_clocks": 300.0, "walk_clocks": 30.0, "alone": 0.05},
}  # fmt: skip
"""Constants before any fit; `_prefill` and `_decode` define their meanings."""

NEVER = 1e4
TILINGS = (
    {"tile_rows": 64.0, "wide_rows": NEVER}, {"tile_rows": 16.0, "wide_rows": 32.0},
    {"tile_rows": 16.0, "wide_rows": NEVER}, {"tile_rows": 128.0, "wide_rows": NEVER},
)  # fmt: skip
"""Rows of a decode tile, and above how many rows of a request a kernel with tiles of 128 takes over: tried in order."""

BETTER = 0.97
"""Share of the error that a later tiling must stay below, so that ambiguous measurements change nothing."""


def _prefill(c: Mapping[str, float], hardware: Hardware, shape: MlaShape) -> Num:
    """Skeleton of a prefill kernel.

    tile: times the flops at one core's peak; tile_keys: cost of a tile's start and masked edge, in keys
    whole: tiles per core from which the number of waves grows with the tiles; dram: times the datasheet's traffic time
    """
    keys = attended_pairs(shape.seq_len, shape.kv_len, 0.0) / shape.seq_len
    core_flops_per_s = peak_of(hardware, RATES[shape.formats.inputs.compute]) / hardware.cores
    key_s = c["tile"] * TILE_QUERIES * 2.0 * shape.read_width / core_flops_per_s
    tiles = shape.batch * shape.heads * np.maximum(shape.seq_len / TILE_QUERIES, 1.0) / hardware.cores
    waves = loosely_overlapped(tiles, c["whole"])
    traffic = c["dram"] * (query_bytes(shape) + kv_bytes(shape))
    return c["launch_s"] + traffic / hardware.memory_bytes_per_s + waves * key_s * (keys + c["tile_keys"])


def _decode(c: Mapping[str, float], hardware: Hardware, shape: MlaShape) -> Num:
    """Skeleton of a decode kernel.

    row_dram, dram: times the datasheet's traffic time, of queries and outputs, and of latents
    again: cost of reading latents again for another tile, relative to the first read
    compute: times the flops of whole tiles at peak
    block_clocks: of each block; depth_clocks: per doubling of the keys
    walk_clocks: of a block per key; alone: blocks per core below which the walk does not get shorter
    """
    rows = shape.heads * shape.seq_len
    wide = np.greater(rows, c["wide_rows"])
    width = np.where(wide, WIDE_ROWS, c["tile_rows"])
    tiles = np.ceil(rows / width)
    blocks = shape.batch * tiles / hardware.cores
    memory_s = c["dram"] * kv_bytes(shape) * (1.0 + c["again"] * (tiles - 1.0)) / hardware.memory_bytes_per_s
    compute_s = c["compute"] * flops_s(hardware, shape) * (tiles * width / rows)
    walk_s = c["walk_clocks"] / hardware.clock_hz * shape.kv_len * overlapped(blocks, c["alone"])
    depth = c["depth_clocks"] * np.log2(1.0 + shape.kv_len / 64.0)
    start_s = c["launch_s"] + (c["block_clocks"] * blocks + depth) / hardware.clock_hz
    rows_s = c["row_dram"] * query_bytes(shape) / hardware.memory_bytes_per_s
    return start_s + rows_s + loosely_overlapped(overlapped(memory_s, compute_s), walk_s)


_SKELETONS = {"prefill": _prefill, "decode": _decode}


def _coordinates(kind: str, hardware: Hardware, shape: MlaShape) -> dict[str, Num]:
    """log2 of physical sizes."""
    if kind == "prefill":
        everything = attended_pairs(shape.seq_len, shape.kv_len, 0.0)
        blocks = shape.batch * shape.heads * np.ceil(shape.seq_len / TILE_QUERIES)
        return {
            "keys": np.log2(np.maximum(2.0 * everything / shape.seq_len - 1.0, 1.0)),
            "waves": np.log2(blocks / hardware.cores), "heads": np.log2(shape.heads),
        }  # fmt: skip
    return {
        "keys": np.log2(shape.kv_len), "waves": np.log2(shape.batch / hardware.cores),
        "rows": np.log2(shape.heads * shape.seq_len),
        "fill": np.log2(kv_bytes(shape) / np.maximum(hardware.cache_bytes, 1.0)),
    }  # fmt: skip


_PREFILL = SurfaceSpec(
    knots={"keys": [0, 4, 5, 6, 7, 8, 9, 10, 10.58, 11, 12, 13, 14, 15], "waves": [*range(-8, 6), 7.0, 9.0, 12.0],
           "heads": [0, 2, 4, 6, 7]},
    terms=[("keys", "waves"), ("keys", "heads"), ("waves", "heads")],
    flat=0.1,
)  # fmt: skip
_DECODE = SurfaceSpec(
    knots={"keys": [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], "waves": [float(x) for x in range(-8, 5)],
           "rows": [0, 1, 3, 4, 5, 6, 7], "fill": [-8, -4, -2, -1, 0, 1, 2, 4, 8]},
    terms=[("keys", "waves"), ("waves", "rows"), ("keys", "rows"), ("fill", "rows")],
    flat=0.1,
)  # fmt: skip
LAYOUTS = {"prefill": _PREFILL, "decode": _DECODE}
"""The coordinates of each correction table, and their knots (log2 units)."""

LEVELS = (tuple(PHASES.values()), ATTENTION)
SURFACES = tuple(LAYOUTS.values())


def needed(phase: str, kv_dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return (*START[phase], *(TILINGS[0] if phase == "decode" else ()))


def _apply(kind: str, entry: KernelFit, hardware: Hardware, shape: MlaShape) -> Num:
    skeleton = _SKELETONS[kind]
    return fitted_s(entry, lambda c: skeleton(c, hardware, shape), lambda: _coordinates(kind, hardware, shape))


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: MlaShape) -> Num:
    """Seconds of one kernel, from fitted `parameters` (of `fit`); no requests, no time.

    A cache format that was not measured takes the constants and surface of another one.
    Raises ConfigError for an unknown phase or cache format.
    """
    if shape.phase not in LAYOUTS:
        raise ConfigError(f"phase '{shape.phase}' is not known; {choices_text(shape.phase, PHASES.values())}")
    one = {name: np.maximum(getattr(shape, name), 1.0) for name in ("batch", "seq_len", "kv_len", "heads")}
    safe = replace(shape, **one)
    time = _apply(shape.phase, _fit_of(parameters, shape), hardware, safe)
    work = shape.batch * shape.seq_len * shape.heads * shape.kv_len
    return np.where(np.greater(work, 0), np.maximum(time, floor_s(hardware, safe)), 0.0)


DECIDING = ("tile",)
"""Constants that determine which kernel runs (`measured_absorbed`), and are therefore numbers in every formula."""


def measured_absorbed(parameters: Mapping[str, Any], shape: MlaShape) -> bool:
    """Whether the measured prompt kernel was run in absorbed form.

    Rows `context_mla` of FlashAttention 3 and Triton under SGLang take at least three times as long as the
    decompressed kernels of the same devices: the benchmark ran them over the latent. Servers decompress prompts there
    (SGLang, `models/deepseek_v2.py`, AttnForwardMethod.MHA), so such a fit does not apply to a graph's prompts.
    """
    if shape.phase != "prefill":
        return False
    entry = _fit_of(parameters, shape)
    each = entry["each"] if "each" in entry else (entry["constants"],)
    return all(constants["tile"] > ABSORBED_TILE for constants in each)


def borrowed(fits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts of other engines' fits that hold for an engine without measurements: the kernels that its servers also
    run.

    Prompt kernels in absorbed form are left out, and those with 8-bit keys, which are the cache's format
    and not that of a prompt's keys. So are decode kernels that convert the whole cache before each step (SGLang's
    FlashAttention with an 8-bit cache), whose latents seem to take many times their traffic, and those that do not
    split the keys of a request, as Triton's do, which servers run there (vLLM, `attention/backends/mla/triton_mla.py`).
    """
    kept = {"prefill": _plain_prefill, "decode": _plain_decode}
    found = [{phase: kept[phase](one[phase]) for phase in kept if phase in one} for one in fits]
    return [{phase: known for phase, known in one.items() if known} for one in found]


def served(fits: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """An engine's fits for its servers' steps: those of the base for prompts, if its own were run in absorbed form."""
    prompts = fits.get("prefill", {})
    plain = {name: fit for name, fit in prompts.items() if fit["constants"]["tile"] <= ABSORBED_TILE}
    return {**fits, "prefill": plain or base.get("prefill") or prompts}


def _plain_prefill(known: Mapping[str, KernelFit]) -> dict[str, KernelFit]:
    return {n: fit for n, fit in known.items() if n != "fp8" and fit["constants"]["tile"] <= ABSORBED_TILE}


def _plain_decode(known: Mapping[str, KernelFit]) -> dict[str, KernelFit]:
    return {n: fit for n, fit in known.items() if _is_plain(fit["constants"])}


def _is_plain(c: Mapping[str, float]) -> bool:
    return c["dram"] <= CONVERTING_DRAM and c["walk_clocks"] * c["alone"] <= SERIAL_CLOCKS


def _fit_of(parameters: Mapping[str, Any], shape: MlaShape) -> KernelFit:
    key = shape.phase, dtype_of("attention", shape.kv_dtype)
    return entry_of(parameters, key, lambda one: _entry(one, *key))


def _entry(parameters: Mapping[str, Any], phase: str, kv_dtype: str) -> KernelFit:
    known: Mapping[str, KernelFit] = parameters.get(phase, {})
    unmeasured = {"constants": START[phase] | (TILINGS[0] if phase == "decode" else {})}
    return known.get(kv_dtype) or known.get(ATTENTION[kv_dtype].like) or next(iter(known.values()), unmeasured)


def shape_of(frame: pd.DataFrame) -> MlaShape:
    """The shape of reference rows of one `op` and `kv_dtype`, all of which have DeepSeek-V3's widths."""
    numbers: dict[str, Any] = {
        name: frame[name].to_numpy(dtype=float) for name in ("batch", "seq_len", "kv_len", "heads")
    }
    kv_dtype = str(frame["kv_dtype"].iloc[0])
    return MlaShape(
        **numbers, kv_dtype=dtype_of("attention", kv_dtype), cached_bytes=stored_bytes("attention", kv_dtype),
        phase=PHASES[str(frame["op"].iloc[0])],
    )  # fmt: skip


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per phase and cache format from reference rows of the two ops."""
    found: dict[str, Any] = {}
    for (op, kv_dtype), rows in frame.groupby(["op", "kv_dtype"], sort=True):
        phase = PHASES[str(op)]
        entry = _fit_one(phase, hardware, shape_of(rows), rows["latency_us"].to_numpy(dtype=float) * 1e-6)
        found.setdefault(phase, {})[dtype_of("attention", str(kv_dtype))] = entry
    return found


def _fit_one(kind: str, hardware: Hardware, shape: MlaShape, measured_s: Array) -> dict[str, Any]:
    constants = _constants(kind, hardware, shape, measured_s)
    target = np.log(measured_s / _SKELETONS[kind](constants, hardware, shape))
    order = _order(kind, constants, hardware, shape.kv_dtype)
    surface = fit_surface(LAYOUTS[kind], _arrays(kind, hardware, shape), target, order=order, rounds=10)
    return {"constants": constants, "surface": surface.to_json()}


def _constants(kind: str, hardware: Hardware, shape: MlaShape, measured_s: Array) -> dict[str, float]:
    start: Mapping[str, float] = START[kind]
    tiling: Mapping[str, float] = {}
    if kind == "decode":
        start, tiling = _tiled(hardware, shape, measured_s)
    return _fitted(kind, hardware, shape, measured_s, start, tiling, most=1000, rounds=25)


def _tiled(hardware: Hardware, shape: MlaShape, measured_s: Array) -> tuple[dict[str, float], dict[str, float]]:
    """The constants and the tiling with the least error."""
    found: tuple[dict[str, float], dict[str, float]] = START["decode"], TILINGS[0]
    least = np.inf
    for tiling in TILINGS:
        c = _fitted("decode", hardware, shape, measured_s, START["decode"], tiling, most=400, rounds=12)
        error = np.abs(np.log(np.asarray(_decode(c, hardware, shape)) / measured_s)).mean()
        if error < BETTER * least:
            found, least = ({name: c[name] for name in START["decode"]}, tiling), float(error)
    return found


def _fitted(
    kind: str, hardware: Hardware, shape: MlaShape, measured_s: Array, start: Mapping[str, float],
    tiling: Mapping[str, float], *, most: int, rounds: int,
) -> dict[str, float]:  # fmt: skip
    """The constants closest to the measurements, of which at most a fixed number is used."""
    some = slice(None, None, max(1, len(measured_s) // most))
    few, skeleton = _rows(shape, some), _SKELETONS[kind]
    found = fit_constants(
        lambda c: np.asarray(skeleton({**c, **tiling}, hardware, few)), start, np.log(measured_s[some]),
        hold=1e-3, rounds=rounds,
    )  # fmt: skip
    return {**found, **tiling}


def _rows(shape: MlaShape, chosen: Any) -> MlaShape:
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    return MlaShape(**{k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in values.items()})


def _arrays(kind: str, hardware: Hardware, shape: MlaShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(kind, hardware, shape).items()}


def _order(kind: str, constants: Mapping[str, float], hardware: Hardware, kv_dtype: str) -> Order:
    """Pairs of kernels, the second with up to four times the requests or keys, of prompts also the heads.

    Not the heads of a decode kernel: a wide tile may be faster than two narrow ones.
    """
    random, count = np.random.default_rng(0), 6_000
    bits = random.uniform(0.0, (11.0, 18.0 if kind == "decode" else 15.0, 7.0), (count, 3))
    which = random.integers(0, 2 if kind == "decode" else 3, (count, 1))
    more = np.where(np.arange(3) == which, random.uniform(0.3, 2.0, (count, 1)), 0.0)
    low, high = (
        MlaShape(
            batch=batch, kv_len=keys, seq_len=keys if kind == "prefill" else np.ones(count), heads=heads,
            kv_dtype=kv_dtype, phase=kind,
        )
        for batch, keys, heads in (np.ceil(2.0**exponents).T for exponents in (bits, bits + more))
    )  # fmt: skip
    growth = np.log(_SKELETONS[kind](constants, hardware, high) / _SKELETONS[kind](constants, hardware, low))
    return Order(low=_arrays(kind, hardware, low), high=_arrays(kind, hardware, high), least=-growth, weight=10.0)
