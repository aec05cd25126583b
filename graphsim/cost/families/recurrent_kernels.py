"""Skeletons of the kernels of recurrent layers: constants with a meaning, and the resulting times.

    convolution  t = launch + ( traffic⁴ + clocks⁴ )^¼,   clocks = channels · (tokens · element + sequences · row
                                                           + sequences · passes of 512 tokens · pass) / cores
    scan         t = launch + rows of a chunk · solve + (chunks of a sequence · chunk + start) · waves
                     + ( traffic⁴ + work⁴ )^¼
    update       t = launch + (tokens - 1) · depth + ( traffic⁴ + clocks⁴ )^¼,
                 clocks = blocks / cores · (block + tokens · token)

Traffic comes from memory or, where it fits, from the last-level cache (`elementwise.traffic_s`).

A scan of prompts takes a sequence in chunks. Within chunks all is GEMMs, which run side by side; a state is passed
from chunk to chunk, so a sequence's head is one walk, and walks run in waves over the cores. Libraries differ in the
work of the walk: flash-linear-attention computes the triangular inverse and the outputs in kernels of their own, which
move what passes between them through memory, and splits a head's state into several blocks; FlashInfer's kernel does
all of it in one walk of one block per head. Both are this skeleton with other constants.

References: Yang et al., "Gated Delta Networks" (arXiv 2412.06464), section 3.3; Kimi Linear (arXiv 2510.26692),
section 3; Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), section 6; flash-linear-attention, `fla/ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphsim.cost.families.elementwise import traffic_s
from graphsim.cost.families.overlap import loosely_overlapped, overlapped
from graphsim.cost.families.recurrent_work import RecurrentShape, convolution_bytes, key_bytes, token_bytes, value_bytes
from graphsim.hardware import Hardware
from graphsim.units import Num

CHUNK = 64.0
"""Tokens of a sequence that a scan takes at once: flash-linear-attention's and FlashInfer's chunk."""

PASS = 512.0
"""Tokens that a convolution with a block for each sequence and channel takes at once (causal-conv1d's kernels)."""

TAPS = 4.0
"""Of the convolutions that were measured."""

HEAD = 128.0 * 128.0
"""State values of the heads that were measured."""

DRAM = 1.15
"""Times the datasheet's traffic time, of what a scan moves through memory; see `passes` for the amount."""

_CACHE = {"cache": 0.3, "cache_fit": 1.0, "cache_edge": 4.0}
_TRAFFIC = {"dram": 1.2, **_CACHE}

START: dict[str, dict[str, float]] = {
    "convolution": {"launch_s": 2e-6, "element_clocks": 0.3, "row_clocks": 0.1, "pass_clocks": 0.1, **_TRAFFIC},
    "scan": {"launch_s": 1.8e-5, "solve_clocks": 400.0, "chunk_clocks": 3500.0, "crowd": 7.0, "whole": 0.3,
             "start_clocks": 200.0, "work_clocks": 500.0, "passes": 8.0, "key_passes": 2.0, "kept": 1.2, "cache": 0.05,
             "cache_fit": 2.0, "cache_edge": 2.0},
    "update": {"launch_s": 3e-6, "block_clocks": 1000.0, "token_clocks": 200.0, "depth_clocks": 1000.0,
               "written": 1.0, **_TRAFFIC},
}  # fmt: skip
"""Constants before any fit; `_convolution`, `_scan` and `_update` define their meanings."""

OTHER_STARTS: dict[str, tuple[dict[str, float], ...]] = {
    "convolution": (START["convolution"] | {"launch_s": 4e-6, "element_clocks": 0.01, "row_clocks": 10.0,
                                            "pass_clocks": 30.0},),
    "scan": (START["scan"] | {"launch_s": 8e-6, "solve_clocks": 10.0, "chunk_clocks": 5500.0, "crowd": 1.1,
                              "whole": 5.0, "start_clocks": 5000.0, "passes": 1.0, "key_passes": 1.0, **_CACHE},),
    "update": (),
}  # fmt: skip
"""Alternative starts of a fit: kernels with a block for each sequence and channel, scans in a single walk."""

OF_FURTHER_TOKENS = {
    "convolution": ("row_clocks", "pass_clocks"), "scan": (), "update": ("token_clocks", "depth_clocks", "written"),
}  # fmt: skip
"""Constants that kernels of one token per sequence do not determine."""

DUAL = START["scan"] | {
    "launch_s": 1.2e-5, "solve_clocks": 1e-3, "chunk_clocks": 300.0, "crowd": 0.2, "work_clocks": 2000.0,
    "passes": 4.0, "key_passes": 4.0,
}  # fmt: skip
"""Mamba-2's scan of prompts, for which there are no measurements, counted from its kernels (mamba_ssm,
`ops/triton/ssd_combined.py`): five of them, without an inversion, and states passed on by an element-wise kernel. They
move four times the bytes of values and outputs: values read twice and outputs written, 1.5; states of every chunk of
256 tokens written, passed on and read, 1.75; decays, the rest. B and C also have GEMMs within chunks."""

HOST = {"host_s": 4e-4, "host_row_s": 3e-6, "host_token_s": 2e-8}
"""Further constants of a convolution for which the host computes tables: per kernel, sequence and token."""


def _convolution(c: Mapping[str, float], hardware: Hardware, shape: RecurrentShape) -> Num:
    """Skeleton of a convolution.

    element_clocks: of a core per token and channel; row_clocks, pass_clocks: per sequence and channel, and for each
        512 tokens of it
    """
    rows = shape.batch * (c["row_clocks"] + c["pass_clocks"] * np.ceil(shape.seq_len / PASS))
    each = np.maximum(shape.taps / TAPS, 1.0) * c["element_clocks"]
    clocks = shape.channels / hardware.cores * (shape.tokens * each + rows)
    moved_s = traffic_s(c, hardware, convolution_bytes(shape))
    time = c["launch_s"] + overlapped(moved_s, clocks / hardware.clock_hz)
    if "host_s" not in c or shape.prepared:
        return time
    return overlapped(time, c["host_s"] + c["host_row_s"] * shape.batch + c["host_token_s"] * shape.tokens)


def _scan(c: Mapping[str, float], hardware: Hardware, shape: RecurrentShape) -> Num:
    """Skeleton of a scan over whole sequences.

    solve_clocks: per row of a chunk, of the triangular system that is solved row by row
    chunk_clocks, start_clocks: of a head's walk, per chunk and once
    crowd: number of cores over which a head is spread, so that waves grow from its inverse; whole: degree of rounding
        to whole waves, 0 for none
    work_clocks: per head and chunk of the parallel work
    passes, key_passes: times the bytes of values and outputs, and of queries and keys, that it moves
    kept: multiple of the bytes of the states, which are read and written once
    """
    blocks, size = shape.batch * shape.heads / hardware.cores, shape.key_dim * shape.value_dim / HEAD
    chunks = np.ceil(shape.seq_len / CHUNK)
    smooth = loosely_overlapped(1.0, blocks * c["crowd"])
    waves = (smooth + c["whole"] * np.ceil(blocks)) / (1.0 + c["whole"])
    walk = (chunks * size * c["chunk_clocks"] + c["start_clocks"]) * waves
    solve = c["solve_clocks"] * np.minimum(shape.seq_len, CHUNK)
    moved = c["passes"] * value_bytes(shape) + c["key_passes"] * key_bytes(shape)
    moved = moved + c["kept"] * 2.0 * shape.state_bytes * shape.states
    work_s = blocks * chunks * size * c["work_clocks"] / hardware.clock_hz
    side_by_side = overlapped(work_s, traffic_s({**c, "dram": DRAM}, hardware, moved))
    return c["launch_s"] + (solve + walk) / hardware.clock_hz + side_by_side


def _update(c: Mapping[str, float], hardware: Hardware, shape: RecurrentShape) -> Num:
    """Skeleton of a kernel that reads every state, takes a token or a few in turn, and writes the state after each.

    block_clocks, token_clocks: of a head's block, and per token of it; depth_clocks: per token but the first
    written: multiple of a state's bytes written per token
    """
    work = shape.batch * shape.heads / hardware.cores * (c["block_clocks"] + shape.seq_len * c["token_clocks"])
    moved = shape.state_bytes * shape.states * (1.0 + c["written"] * shape.seq_len)
    depth_s = (shape.seq_len - 1.0) * c["depth_clocks"] / hardware.clock_hz
    return c["launch_s"] + depth_s + overlapped(work / hardware.clock_hz, traffic_s(c, hardware, moved))


SKELETONS: dict[str, Callable[[Mapping[str, float], Hardware, RecurrentShape], Num]] = {
    "convolution": _convolution, "scan": _scan, "update": _update,
}  # fmt: skip


def kind_of(step: str, phase: str) -> str:
    """Which skeleton a kernel has."""
    if step == "convolution":
        return step
    return "scan" if phase == "context" else "update"


def coordinates(kind: str, hardware: Hardware, shape: RecurrentShape) -> dict[str, Num]:
    """log2 of physical sizes: tokens of a sequence, rows of work per core, bytes against the cache."""
    convolves = kind == "convolution"
    width = shape.channels if convolves else shape.heads
    moved = convolution_bytes(shape) if convolves else token_bytes(shape) + 2.0 * shape.state_bytes * shape.states
    return {
        "seq": np.log2(shape.seq_len),
        "waves": np.log2(shape.batch * width / hardware.cores),
        "fill": np.log2(moved / np.maximum(hardware.cache_bytes, 1.0)),
    }
