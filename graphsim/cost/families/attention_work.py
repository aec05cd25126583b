"""The work of one attention kernel: its shape, attended pairs, bytes, flops, and its physical lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.cost.families.formats import ATTENTION, Dtype, dtype_of, peak_of, stored_bytes
from graphsim.hardware import Hardware
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """One attention kernel of `batch` equal requests.

    seq_len: new queries per request
    kv_len: keys that the last query sees, its own included
    window: keys that one query attends to at most; 0 is all
    cached_bytes: per number of the cache; None for that of `kv_dtype`
    activation_bytes: per number of queries and outputs; None for the format of the kernels of `kv_dtype`
    """

    family: ClassVar[str] = "attention"

    batch: Num
    seq_len: Num = 1.0
    kv_len: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    window: Num = 0.0
    kv_dtype: str = "bfloat16"
    phase: str = "decode"
    cached_bytes: float | None = None
    activation_bytes: float | None = None

    @property
    def formats(self) -> Dtype:
        """Formats of the operands and matrix rate for the cache's dtype. Raises ConfigError for an unknown one."""
        return ATTENTION[dtype_of("attention", self.kv_dtype)]

    @property
    def bytes_of_a_key(self) -> Num:
        """Bytes of one key and its value, in one key head."""
        cached = stored_bytes("attention", self.kv_dtype) if self.cached_bytes is None else self.cached_bytes
        return 2.0 * cached * self.head_dim

    @property
    def query_bytes(self) -> float:
        """Bytes per number of queries and outputs."""
        return self.formats.activation_bytes if self.activation_bytes is None else self.activation_bytes


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
    """Bytes of keys and values that the kernel reads at least once."""
    seen = np.where(np.greater(shape.window, 0), np.minimum(shape.kv_len, shape.window + shape.seq_len - 1.0),
                    shape.kv_len)  # fmt: skip
    return shape.bytes_of_a_key * shape.kv_heads * shape.batch * seen


def query_bytes(shape: AttentionShape) -> Num:
    """Queries read and outputs written."""
    return 2.0 * shape.query_bytes * shape.heads * shape.head_dim * (shape.batch * shape.seq_len)


def flops(shape: AttentionShape) -> Num:
    """Two GEMMs per attended pair and head; a multiply-add is 2 flops."""
    pairs = attended_pairs(shape.seq_len, shape.kv_len, shape.window)
    return 4.0 * shape.heads * shape.head_dim * shape.batch * pairs


def _flops_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """Time of the flops at peak: fp8 if the cache is fp8 and the device supports it, else that of the queries'
    format.
    """
    return flops(shape) / peak_of(hardware, shape.formats.rates)


def roofline_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """The bare datasheet roofline: flops at peak or bytes at memory bandwidth, whichever is longer."""
    moved = kv_bytes(shape) + query_bytes(shape)
    return np.maximum(_flops_s(hardware, shape), moved / hardware.memory_bytes_per_s)


def floor_s(hardware: Hardware, shape: AttentionShape) -> Num:
    """A physical lower bound.

    Keys and values that fit the last-level cache may stay there between steps and come at up to five
    times the memory's rate; this advantage vanishes within 10 % above its size.
    """
    held = kv_bytes(shape)
    share = np.minimum(np.maximum(8.0 / np.maximum(hardware.cache_bytes, 1.0) * held - 7.8, 0.2), 1.0)
    moved = held + query_bytes(shape)
    return np.maximum(_flops_s(hardware, shape), share * moved / hardware.memory_bytes_per_s)
