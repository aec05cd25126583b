"""Attention to chosen or pooled keys, and the scores by which an indexer chooses them.

An indexer scores every cached key with a few narrow heads, writes a score for each pair and selects the best of each
query; attention then gathers their cache rows, in blocks of 64 heads of one query (FlashMLA's sparse kernels pad fewer
heads to a block). Neither was measured alone: the constants come from whole blocks less the other families' prices of
their projections (`composed/sparse_fit.py`).

    scores  t = exp(surface) · ( start + flops at peak ⊕ keys / bandwidth + scores / bandwidth + queries / cores · row )
    attend  t = exp(surface) · ( start + keys · key · ((blocks / cores)³ + whole³)^⅓ + gathered rows / bandwidth )

never below the flops at peak.

References: DeepSeek-V3.2-Exp report, section 2 (indexer, top-k); FlashMLA, `docs/20250929-hopper-fp8-sparse-deep-dive`
(blocks of 64 heads, gathered rows); transformers 5.24, `models/deepseek_v4`, `models/minimax_m3_vl` (what is pooled and
chosen).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import ATTENTION, dtype_of, peak_of
from graphsim.cost.families.overlap import loosely_overlapped, overlapped
from graphsim.cost.surfaces.fitting import SurfaceSpec
from graphsim.hardware import Hardware
from graphsim.ops.formats import RATES
from graphsim.units import Num

SCORES, ATTEND, BLOCK = "scores", "attend", "block"
"""Parts of a fit: both kernels, and the extra time of whole blocks (`composed/sparse_blocks.py`)."""

BLOCK_HEADS = 64.0
SCORE_BYTES = 4.0

START: dict[str, dict[str, float]] = {
    SCORES: {"start_s": 1e-5, "flops": 1.5, "keys": 1.5, "written": 3.0, "row_clocks": 2e4},
    ATTEND: {"start_s": 3e-5, "flops": 1.6, "pad": 40.0, "whole": 0.5, "gather": 0.4, "idle": 0.2},
    BLOCK: {"fused_s": 1e-5, "fused_fp8_s": 1e-5, "host_s": 6e-4, "fp8_s": 3e-4, "fp4_s": 5e-4, "long_s": 5e-4},
}
"""Constants before any fit; `_scores`, `_attend` and `composed/sparse_blocks.py` define their meanings."""

LIKE: dict[str, tuple[str, ...]] = {
    "dsa": ("dsa_shared",), "dsa_shared": ("dsa",), "csa": ("hca", "dsa"), "hca": ("csa",), "window": ("hca", "csa"),
}  # fmt: skip
"""The methods whose constants are used for one that was not measured, the nearest first."""


DENSE = ("dsa_dense", "dsa_shared_dense")
"""Methods of prompts so short that they see all keys, which SGLang attends as if nothing was chosen: after its own
indexer, whose keys are cached nevertheless, and after an earlier layer's. The block is fitted as a whole."""

METHODS = ("dsa", "dsa_shared", *DENSE, "csa", "hca", "window", "msa")
"""Of `ops.SparseAttention`, and DENSE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseShape:
    """One kernel.

    part: `scores` or `attend`
    method: see `ops.SparseAttention`
    queries: of all sequences
    keys: cache rows that are scored
    pairs: of a query and a key, scored or attended
    slots: number of keys in each query's selection; 0 without a selection
    head_dim, value_dim: of queries and of results
    row_bytes: of a cached row of one key head
    """

    family: ClassVar[str] = "sparse"

    part: str
    method: str
    phase: str
    queries: Num
    keys: Num
    pairs: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    value_dim: Num
    row_bytes: Num
    slots: Num = 0.0
    kv_dtype: str = "bfloat16"

    @property
    def flops(self) -> Num:
        """Flops of both GEMMs; a multiply-add is 2 flops."""
        return 2.0 * self.heads * (self.head_dim + self.value_dim) * self.pairs


def _scores(c: Mapping[str, float], hardware: Hardware, shape: SparseShape) -> Num:
    """Skeleton of an indexer's kernels.

    flops: times the time at peak, in fp8 where the device knows it; keys: times the keys' traffic at the datasheet's
    bandwidth; written: likewise of a score for every pair; row_clocks: of selecting a query's best, one core each
    """
    compute_s = c["flops"] / _peak(hardware) * shape.flops
    keys_s = c["keys"] / hardware.memory_bytes_per_s * shape.row_bytes * shape.keys
    written_s = c["written"] * SCORE_BYTES / hardware.memory_bytes_per_s * shape.pairs
    rows_s = c["row_clocks"] / (hardware.clock_hz * hardware.cores) * shape.queries
    return c["start_s"] + overlapped(compute_s, keys_s) + written_s + rows_s


def _attend(c: Mapping[str, float], hardware: Hardware, shape: SparseShape) -> Num:
    """Skeleton of a kernel that gathers.

    flops: times the time at one core's 16-bit peak; pad: least number of heads per key head that is computed; whole:
        blocks per core from which time grows with the blocks; gather: times the datasheet's traffic of all gathered
        rows
    idle: time of an empty slot relative to a key
    start_s: of all kernels of the block that no other family prices
    """
    key_s = c["flops"] * 2.0 * BLOCK_HEADS * hardware.cores / peak_of(hardware, RATES["bf16"])
    together = overlapped(shape.heads / shape.kv_heads, c["pad"])
    blocks = shape.queries * shape.kv_heads * together / (BLOCK_HEADS * hardware.cores)
    keys = shape.pairs / shape.queries
    keys = keys + min(c["idle"], 1.0) * np.maximum(shape.slots - keys, 0.0)
    gathered = c["gather"] / hardware.memory_bytes_per_s * shape.row_bytes * shape.kv_heads * shape.queries * keys
    walked = key_s * (shape.head_dim + shape.value_dim) * keys * loosely_overlapped(blocks, c["whole"])
    return c["start_s"] + walked + gathered


_SKELETONS: dict[str, Callable[[Mapping[str, float], Hardware, SparseShape], Num]] = {
    SCORES: _scores, ATTEND: _attend,
}  # fmt: skip


def _peak(hardware: Hardware) -> Num:
    return peak_of(hardware, (*RATES["fp8"], *RATES["bf16"]))


def coordinates(shape: SparseShape) -> dict[str, Num]:
    """log2 of the queries, of the keys that each meets, and of the heads."""
    return {
        "queries": np.log2(shape.queries),
        "keys": np.log2(np.maximum(shape.pairs / shape.queries, 1.0)),
        "heads": np.log2(shape.heads),
    }


LAYOUT = SurfaceSpec(
    knots={
        "queries": [0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17], "heads": [0, 3, 4, 5, 6, 7],
        "keys": [0, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20],
    },
    terms=[("queries", "keys"), ("queries", "heads")], ridge=0.03, flat=0.1,
)  # fmt: skip
"""Of the correction; see `coordinates`."""


LEVELS = (METHODS, ("prefill", "decode"), ATTENTION, (SCORES, ATTEND, BLOCK))
SURFACES = (LAYOUT,)


def needed(method: str, phase: str, kv_dtype: str, part: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START[part]


def skeleton_s(part: str, c: Mapping[str, float], hardware: Hardware, shape: SparseShape) -> Num:
    """Seconds of a part by its skeleton alone."""
    return _SKELETONS[part](c, hardware, shape)


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: SparseShape) -> Num:
    """Seconds of one kernel, from fitted `parameters`; zero without pairs.

    A method or a cache format that was not measured takes the constants and surfaces of the nearest one.
    """
    dtype = dtype_of("attention", shape.kv_dtype)
    key = shape.method, shape.phase, dtype, shape.part
    entry = entry_of(parameters, key[:3], lambda one: _entry(one, *key))
    safe = _at_least_one(shape)
    time = fitted_s(entry, lambda c: skeleton_s(shape.part, c, hardware, safe), lambda: coordinates(safe))
    return np.where(np.greater(shape.pairs * shape.heads, 0), np.maximum(time, safe.flops / _peak(hardware)), 0.0)


def _at_least_one(shape: SparseShape) -> SparseShape:
    one = {name: np.maximum(getattr(shape, name), 1.0) for name in ("queries", "keys", "pairs", "heads", "kv_heads")}
    return replace(shape, **one)


def _entry(parameters: Mapping[str, Any], method: str, phase: str, kv_dtype: str, part: str) -> KernelFit:
    """The fit of a part: of the method, else of one like it; of the cache's format, else of another one."""
    for name in (method, *LIKE.get(method, ())):
        known: Mapping[str, Mapping[str, KernelFit]] = parameters.get(name, {}).get(phase, {})
        for dtype in dict.fromkeys((kv_dtype, ATTENTION[kv_dtype].like, *known)):
            if part in known.get(dtype, {}):
                return known[dtype][part]
    return {"constants": START[part]}


def roofline_s(hardware: Hardware, shape: SparseShape) -> Num:
    """The bare datasheet roofline: flops at peak, or scored or gathered rows at memory bandwidth."""
    rows = np.minimum(shape.keys, shape.pairs) * shape.kv_heads
    return np.maximum(shape.flops / _peak(hardware), rows * shape.row_bytes / hardware.memory_bytes_per_s)
