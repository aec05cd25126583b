"""What one attention kernel has to do: its shape, attended pairs, bytes, flops, and the least time physics allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num

KV_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
"""Bytes of one cached number. Queries and outputs have 16 bits."""

ALIASES = {"bf16": "bfloat16", "fp16": "bfloat16", "float16": "bfloat16", "half": "bfloat16", "auto": "bfloat16",
           "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "int8": "fp8"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """One attention kernel of `batch` equal requests.

    seq_len: new queries per request; kv_len: keys that the last of them sees, itself included
    window: keys that one query attends to at most; 0 is all
    """

    batch: Num
    seq_len: Num = 1.0
    kv_len: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    window: Num = 0.0
    kv_dtype: str = "bfloat16"
    phase: str = "decode"


def attended_pairs(queries: Num, keys: Num, window: Num) -> Num:
    """Query-key pairs of one request and head: causal, each query seeing at most `window` keys (0: all)."""
    reach = np.where(np.greater(window, 0), np.minimum(window, keys), keys)
    if isinstance(queries, float) and queries == 1.0:
        return reach
    first = np.maximum(keys - queries, 0.0)
    growing = np.minimum(np.maximum(reach - first, 0.0), queries)
    pairs: Num = growing * first + 0.5 * growing * (growing + 1.0) + (queries - growing) * reach
    return pairs


def kv_bytes(shape: AttentionShape) -> Num:
    """Keys and values that the kernel has to see at least once."""
    seen = np.where(np.greater(shape.window, 0), np.minimum(shape.kv_len, shape.window + shape.seq_len - 1.0),
                    shape.kv_len)  # fmt: skip
    of_a_key = 2.0 * KV_BYTES[kv_dtype_of(shape.kv_dtype)] * shape.kv_heads * shape.head_dim
    return of_a_key * shape.batch * seen


def query_bytes(shape: AttentionShape) -> Num:
    """Queries read and outputs written, 16 bits each."""
    return 4.0 * shape.heads * shape.head_dim * (shape.batch * shape.seq_len)


def flops(shape: AttentionShape) -> Num:
    """Two products per attended pair and head; a multiply-add is 2 flops."""
    pairs = attended_pairs(shape.seq_len, shape.kv_len, shape.window)
    return 4.0 * shape.heads * shape.head_dim * shape.batch * pairs


def kv_dtype_of(name: str) -> str:
    """Canonical name of a cache format. Raises ConfigError with the nearest valid one."""
    found = ALIASES.get(name, name)
    if found not in KV_BYTES:
        raise ConfigError(f"kv_dtype '{name}' is not known; {choices_text(name, [*KV_BYTES, *ALIASES])}")
    return found


def peak_of(hardware: Hardware, *formats: str) -> Num:
    """Peak of the first of these formats that the device states, else of its widest used ones."""
    for name in (*formats, "bf16", "fp16", "tf32", "fp32"):
        if name in hardware.flops_per_s:
            return hardware.flops_per_s[name]
    return hardware.peak("bf16")


def _flops_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """Time of the flops at peak: fp8 if the cache is fp8 and the device knows it, else 16 bits."""
    formats = ("fp8",) if kv_dtype_of(shape.kv_dtype) == "fp8" else ()
    return flops(shape) / peak_of(hardware, *formats)


def roofline_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """The bare datasheet roofline: flops at peak or bytes at memory bandwidth, whichever is longer."""
    moved = kv_bytes(shape) + query_bytes(shape)
    return np.maximum(_flops_s(hardware, shape), moved / hardware.memory_bytes_per_s)


def floor_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """The least time physics allows.

    Keys and values that fit the last-level cache may stay there between steps and come at up to five
    times the memory's rate; within 10 % above its size that advantage ends.
    """
    held = kv_bytes(shape)
    share = np.minimum(np.maximum(8.0 / np.maximum(hardware.cache_bytes, 1.0) * held - 7.8, 0.2), 1.0)
    moved = held + query_bytes(shape)
    return np.maximum(_flops_s(hardware, shape), share * moved / hardware.memory_bytes_per_s)
