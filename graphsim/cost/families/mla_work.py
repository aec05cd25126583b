"""The work of one latent-attention kernel: its shape, bytes, flops, and the physical lower bound of its time.

A prompt is attended in decompressed form, with keys and values of every head; a decode step in absorbed form, where all
heads share the cached latent (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.cost.families.attention_work import attended_pairs
from graphsim.cost.families.formats import ATTENTION, Dtype, dtype_of, peak_of, stored_bytes
from graphsim.hardware import Hardware
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaShape:
    """One kernel over `batch` equal requests.

    seq_len: new queries per request
    kv_len: keys that the last query sees, its own included
    heads: of queries
    nope, rope, value_dim: of a decompressed head
    rank: width of the cached latent, without `rope`
    cached_bytes: per number of the cache; None for that of `kv_dtype`
    activation_bytes: per number of queries and outputs; None for the format of the kernels of `kv_dtype`
    """

    family: ClassVar[str] = "mla"

    batch: Num
    seq_len: Num = 1.0
    kv_len: Num
    heads: Num
    nope: Num = 128.0
    rope: Num = 64.0
    value_dim: Num = 128.0
    rank: Num = 512.0
    kv_dtype: str = "bfloat16"
    phase: str = "decode"
    cached_bytes: float | None = None
    activation_bytes: float | None = None

    @property
    def formats(self) -> Dtype:
        """Formats of the operands and matrix rate for the cache's dtype. Raises ConfigError for an unknown one."""
        return ATTENTION[dtype_of("attention", self.kv_dtype)]

    @property
    def read_width(self) -> Num:
        """Total width of keys and values per query: the flops of a pair and head are twice that."""
        if self.phase == "decode":
            return 2.0 * self.rank + self.rope
        return self.nope + self.rope + self.value_dim

    @property
    def cached(self) -> float:
        """Bytes per number of the cache."""
        return stored_bytes("attention", self.kv_dtype) if self.cached_bytes is None else self.cached_bytes

    @property
    def query_bytes(self) -> float:
        """Bytes per number of queries and outputs."""
        return self.formats.activation_bytes if self.activation_bytes is None else self.activation_bytes


def kv_bytes(shape: MlaShape) -> Num:
    """The latents of a decode step, or the keys and values of all heads, read once."""
    of_a_key = (shape.rank + shape.rope) * shape.cached if shape.phase == "decode" else _decompressed(shape)
    return of_a_key * (shape.batch * shape.kv_len)


def _decompressed(shape: MlaShape) -> Num:
    """Bytes of a key and its value of all heads, in the format of the queries."""
    return shape.query_bytes * shape.heads * shape.read_width


def query_bytes(shape: MlaShape) -> Num:
    """Queries read and outputs written."""
    return shape.query_bytes * shape.heads * shape.read_width * (shape.batch * shape.seq_len)


def flops(shape: MlaShape) -> Num:
    """Two GEMMs per attended pair and head; a multiply-add is 2 flops."""
    pairs = attended_pairs(shape.seq_len, shape.kv_len, 0.0)
    return 2.0 * shape.heads * shape.read_width * shape.batch * pairs


def flops_s(hardware: Hardware, shape: MlaShape) -> Num:
    """Time of the flops at peak: fp8 if the cache is fp8 and the device supports it, else that of the queries'
    format.
    """
    return flops(shape) / peak_of(hardware, shape.formats.rates)


def roofline_s(hardware: Hardware, shape: MlaShape) -> Num:
    """The bare datasheet roofline: flops at peak or bytes at memory bandwidth, whichever is longer."""
    moved = kv_bytes(shape) + query_bytes(shape)
    return np.maximum(flops_s(hardware, shape), moved / hardware.memory_bytes_per_s)


def floor_s(hardware: Hardware, shape: MlaShape) -> Num:
    """A physical lower bound; a cache that the last level holds comes at up to five times the memory's rate."""
    held = kv_bytes(shape)
    share = np.minimum(np.maximum(8.0 / np.maximum(hardware.cache_bytes, 1.0) * held - 7.8, 0.2), 1.0)
    return np.maximum(flops_s(hardware, shape), share * held / hardware.memory_bytes_per_s)
