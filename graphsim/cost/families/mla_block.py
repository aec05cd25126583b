"""Time of a whole latent-attention block relative to the sum of its kernels, as engines run it.

Kernels launched back to back start faster than a single one, since each launch overlaps the end of the last; and
engines move queries and results between layouts by kernels that are not in the graph (vLLM's concatenation of the two
parts of a query, its transposed results of the batched GEMMs, FlashAttention's plan of splits):

    t = exp(surface) · ( max(kernels - saved, LEAST · kernels) + added + copies · queries, results / bandwidth )

The constants and the surface over tokens, heads, keys and the GEMMs' format are fitted to measured blocks
(`composed/mla.py`); they hold for an engine's decode steps, prompts, or short prompts attended by decode kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import ATTENTION, dtype_of
from graphsim.cost.surfaces.fitting import SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware

PATHS = ("decode", "prefill", "prefill_fp8", "short")
"""The attention paths with separate fits: prompts with 8-bit queries and keys, and short prompts that decode
kernels attend."""

LIKE = {"prefill_fp8": "prefill", "short": "decode"}
"""The path whose fit is used for one that was not measured."""

START = {"saved_s": 5e-6, "added_s": 5e-6, "copies": 1.0}
LEAST = 0.3
"""Least share of the sum of the kernels that remains after overlapping their launches."""

WIDTH = 576 + 512
"""Numbers of a query and its result in absorbed form, of DeepSeek-V3's latent."""

FORMATS = {"bfloat16": 0.0, "fp8_block": 1.0, "fp8": 1.0, "nvfp4": 2.0}
"""Positions of the GEMMs' formats on the surface's axis: those that are quantised by blocks, and in which way."""

LAYOUT = SurfaceSpec(
    knots={"tokens": [0, 3, 5, 7, 8, 9, 10, 11, 13, 15], "heads": [0, 2, 3, 5, 6], "keys": [1, 5, 8, 10, 12, 14, 17],
           "format": [0, 1, 2]},
    terms=[("tokens", "format"), ("tokens", "heads"), ("tokens", "keys"), ("heads", "format")],
    smooth=0.3, ridge=0.01,
)  # fmt: skip
"""log2 of tokens, heads and keys, and the position of the format in FORMATS."""

LEVELS = (PATHS, ATTENTION)
SURFACES = (LAYOUT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """Blocks of one path and cache format, row by row.

    kernels_s: the sum of the prices of their kernels
    tokens: new ones, of all requests
    keys: of each request
    """

    kernels_s: Array
    tokens: Array
    heads: Array
    keys: Array
    format: Array
    path: str
    kv_dtype: str


def needed(path: str, kv_dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: BlockShape) -> Array:
    """Seconds of each block; the sum of its kernels if no block was measured."""
    if not parameters:
        return shape.kernels_s
    key = shape.path, dtype_of("attention", shape.kv_dtype)
    entry = entry_of(parameters, key, lambda one: _entry(one, *key))
    if not entry:
        return shape.kernels_s
    return np.asarray(
        fitted_s(entry, lambda c: _skeleton(c, hardware, shape), lambda: _coordinates(shape)), dtype=float
    )


def _entry(parameters: Mapping[str, Any], path: str, kv_dtype: str) -> KernelFit:
    known: Mapping[str, KernelFit] = parameters.get(path) or parameters.get(LIKE.get(path, ""), {})
    return known.get(kv_dtype) or next(iter(known.values()), {})


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: BlockShape) -> Array:
    """saved_s: time saved by overlapping launches; added_s: time of further kernels; copies: times the traffic of
    layouts.
    """
    left_s = np.maximum(shape.kernels_s - c["saved_s"], LEAST * shape.kernels_s)
    moved = 2.0 * WIDTH * shape.tokens * shape.heads
    return np.asarray(left_s + c["added_s"] + c["copies"] * moved / hardware.memory_bytes_per_s)


def _coordinates(shape: BlockShape) -> dict[str, Array]:
    return {
        "tokens": np.log2(shape.tokens), "heads": np.log2(shape.heads), "keys": np.log2(shape.keys),
        "format": shape.format,
    }  # fmt: skip


def fit(shape: BlockShape, measured_s: Array, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface of the blocks of one path and cache format."""
    constants = fit_constants(lambda c: _skeleton(c, hardware, shape), START, np.log(measured_s), hold=1e-3, rounds=30)
    target = np.log(measured_s / _skeleton(constants, hardware, shape))
    surface = fit_surface(LAYOUT, _coordinates(shape), target, rounds=10)
    return {"constants": constants, "surface": surface.to_json()}
