"""Skeletons of attention kernels: their launches, bytes and blocks of work before the correction of a surface.

What each is, and where it comes from: `attention.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphsim.cost.families.attention_work import AttentionShape, attended_pairs, kv_bytes, query_bytes
from graphsim.cost.families.formats import peak_of
from graphsim.cost.families.overlap import loosely_overlapped, overlapped
from graphsim.hardware import Hardware
from graphsim.ops.formats import RATES
from graphsim.units import Num

TILE_QUERIES = 128.0

START = {
    "prefill": {"launch_s": 9e-6, "tile": 2.0, "tile_keys": 100.0, "whole": 0.5, "dram": 1.2, "kv_dram": 2.0},
    "decode": {"launch_s": 9e-6, "dram": 1.2, "block_clocks": 4000.0, "row_clocks": 10.0,
               "depth_clocks": 300.0},
    "single": {"launch_s": 9e-6, "dram": 0.5, "block_clocks": 4000.0, "walk": 1.0, "alone_clocks": 0.07},
    "split": {"launch_s": 9e-6, "dram": 1.2, "block_clocks": 1.5e4},
}  # fmt: skip
"""Constants before any fit; `prefill`, `decode`, `single` and `split` define their meanings."""

SPLITS = 32.0
"""Blocks per request and key head in a captured graph, regardless of its keys: vLLM's default of
`flash_attn_max_num_splits_for_cuda_graph` (`vllm/config/attention.py`)."""

CAPTURED_REQUESTS = 512.0
"""Requests up to which vLLM captures graphs; for more, `FlashAttentionMetadataBuilder.build` leaves the number of
splits to the kernel (`vllm/v1/attention/backends/flash_attn.py`)."""

WIDEST_DIM = 256.0
"""Largest head size for which FlashAttention 2 and 3 exist, whose scheduler skips splits without keys. FlashAttention 4
serves larger ones on Hopper and starts them all."""


def prefill(c: Mapping[str, float], hardware: Hardware, shape: AttentionShape) -> Num:
    """Skeleton of a prefill kernel.

    tile: times the flops at one core's peak; tile_keys: cost of a tile's start and masked edge, in keys
    whole: tiles per core from which the number of waves grows with the tiles
    dram, kv_dram: times the datasheet's traffic time, of queries and outputs, and of keys and values
    """
    keys = attended_pairs(shape.seq_len, shape.kv_len, shape.window) / shape.seq_len
    core_flops_per_s = peak_of(hardware, RATES[shape.formats.inputs.compute]) / hardware.cores
    key_s = c["tile"] * TILE_QUERIES * 4.0 * shape.head_dim / core_flops_per_s
    tiles = shape.batch * shape.heads * np.maximum(shape.seq_len / TILE_QUERIES, 1.0) / hardware.cores
    waves = loosely_overlapped(tiles, c["whole"])
    traffic = c["dram"] * query_bytes(shape) + c["kv_dram"] * kv_bytes(shape)
    return c["launch_s"] + traffic / hardware.memory_bytes_per_s + waves * key_s * (keys + c["tile_keys"])


def decode(c: Mapping[str, float], hardware: Hardware, shape: AttentionShape) -> Num:
    """Skeleton of a decode kernel whose blocks serve all heads of a key head.

    block_clocks, row_clocks: of each block, and of each query head in it; depth_clocks: per doubling of the keys
    """
    keys = keys_of(shape)
    blocks = shape.batch * shape.kv_heads / hardware.cores
    block = c["block_clocks"] + c["row_clocks"] * shape.heads / shape.kv_heads
    start_s = c["launch_s"] + blocks * block / hardware.clock_hz + query_bytes(shape) / hardware.memory_bytes_per_s
    depth_s = c["depth_clocks"] / hardware.clock_hz * np.log2(1.0 + keys / 64.0)
    return start_s + depth_s + c["dram"] / hardware.memory_bytes_per_s * kv_bytes(shape)


def single(c: Mapping[str, float], hardware: Hardware, shape: AttentionShape) -> Num:
    """Skeleton of a decode kernel with one block per query head that walks all keys.

    walk: times the keys' bytes at one core's share of the memory bandwidth, for each block of a core
    alone_clocks: per byte of the keys, of a block that walks alone on its core, at the rate of the core: 0.06 to 0.08
        on the three devices where vLLM's is FlashAttention 2
    """
    blocks = shape.batch * shape.heads / hardware.cores
    start_s = c["launch_s"] + blocks * (c["block_clocks"] / hardware.clock_hz)
    shared_s = c["walk"] * hardware.cores / hardware.memory_bytes_per_s * blocks
    walked_s = shape.bytes_of_a_key * overlapped(shared_s, c["alone_clocks"] / hardware.clock_hz) * keys_of(shape)
    return start_s + walked_s + (c["dram"] * kv_bytes(shape) + query_bytes(shape)) / hardware.memory_bytes_per_s


def split(c: Mapping[str, float], hardware: Hardware, shape: AttentionShape) -> Num:
    """Skeleton of a decode kernel with SPLITS blocks per request and key head, most of them without keys.

    block_clocks: of each block, its share of joining the partial results included
    """
    blocks = SPLITS * shape.batch * shape.kv_heads / hardware.cores
    blocks_s = blocks * c["block_clocks"] / hardware.clock_hz
    keys_s = c["dram"] * kv_bytes(shape) / hardware.memory_bytes_per_s
    return c["launch_s"] + loosely_overlapped(blocks_s, keys_s) + query_bytes(shape) / hardware.memory_bytes_per_s


SKELETONS = {"prefill": prefill, "decode": decode, "single": single, "split": split}


def keys_of(shape: AttentionShape) -> Num:
    """Keys that one query attends to."""
    return np.where(np.greater(shape.window, 0), np.minimum(shape.kv_len, shape.window), shape.kv_len)


def is_single(shape: AttentionShape) -> Num:
    """Whether a kernel that cannot always group heads gives every query head its own block."""
    return np.greater(shape.window, 0) | np.equal(shape.heads, shape.kv_heads)


def is_split(shape: AttentionShape) -> Num:
    """Whether a kernel that does not skip splits without keys has a fixed number of them."""
    wide = np.greater(shape.head_dim, WIDEST_DIM)
    if isinstance(wide, bool | np.bool_) and not wide:
        return False
    return wide & np.less_equal(shape.batch, CAPTURED_REQUESTS)


PARTS = {"split": is_split, "single": is_single}
"""Further fits that decode kernels may have, and the shapes that they price, the first that applies."""
