"""The work of one kernel of a recurrent layer: its shape, bytes, operations, and the physical lower bound of its
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.cost.families.formats import peak_of
from graphsim.hardware import Hardware
from graphsim.ops.formats import RATES
from graphsim.units import Num

LEAST_STATE_BYTES = 2.0
"""Per state value, in the narrowest pool that engines offer; most keep fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentShape:
    """One kernel of a recurrent layer over `batch` equal sequences.

    step: `convolution` (depthwise and causal, `taps` wide), `scan` (the recurrence), or `fused` (both, and the gates)
    phase: `context` (whole sequences), `generation` (one token each), `verify` (a few drafted tokens each, the state
        kept after every one)
    mechanism: `gdn` (gated delta rule), `kda` (Kimi delta attention, a decay for every channel, whose queries, keys
        and values are convolved one after another), `mamba2` (state-space duality)
    seq_len: new tokens per sequence
    heads, value_dim: of the values
    key_heads, key_dim: of keys and queries (B and C in Mamba-2)
    channels: of a convolution
    prepared: whether the tables of sequences for a convolution of prompts were computed once for all layers of the
        step, as in servers; a kernel measured alone may compute its own
    """

    family: ClassVar[str] = "recurrent"

    step: str
    phase: str
    mechanism: str = "gdn"
    batch: Num
    seq_len: Num = 1.0
    heads: Num = 1.0
    value_dim: Num = 128.0
    key_heads: Num = 1.0
    key_dim: Num = 128.0
    channels: Num = 1.0
    taps: Num = 4.0
    state_bytes: float = 4.0
    activation_bytes: float = 2.0
    prepared: bool = False

    @property
    def tokens(self) -> Num:
        """New tokens of all sequences."""
        return self.batch * self.seq_len

    @property
    def states(self) -> Num:
        """State values of all sequences."""
        return self.batch * self.heads * self.key_dim * self.value_dim


def convolution_bytes(shape: RecurrentShape) -> Num:
    """Every channel of every token read and written, and the last taps of each sequence."""
    return 2.0 * shape.activation_bytes * shape.channels * (shape.tokens + shape.taps * shape.batch)


def key_bytes(shape: RecurrentShape) -> Num:
    """Queries and keys read."""
    return 2.0 * shape.activation_bytes * shape.tokens * shape.key_heads * shape.key_dim


def value_bytes(shape: RecurrentShape) -> Num:
    """Values read and outputs written."""
    return 2.0 * shape.activation_bytes * shape.tokens * shape.heads * shape.value_dim


def token_bytes(shape: RecurrentShape) -> Num:
    """Queries, keys and values read and outputs written."""
    return key_bytes(shape) + value_bytes(shape)


def scan_flops(shape: RecurrentShape) -> Num:
    """Decay, update and read-out for every token: six operations per state value, as `ops.Scan` counts them."""
    return 6.0 * shape.states * shape.seq_len


def least_bytes(shape: RecurrentShape, state_bytes: float) -> Num:
    """Bytes moved at least once; values within a fused kernel stay on the chip."""
    if shape.step == "convolution":
        return convolution_bytes(shape)
    return token_bytes(shape) + 2.0 * state_bytes * shape.states


def roofline_s(hardware: Hardware, shape: RecurrentShape) -> Num:
    """The bare datasheet roofline: operations at the matrix peak or bytes at memory bandwidth, whichever is longer."""
    moved_s = least_bytes(shape, shape.state_bytes) / hardware.memory_bytes_per_s
    if shape.step == "convolution":
        return moved_s
    return np.maximum(scan_flops(shape) / peak_of(hardware, RATES["bf16"]), moved_s)


def floor_s(hardware: Hardware, shape: RecurrentShape) -> Num:
    """A physical lower bound, with the narrowest states of any engine.

    Bytes that fit the last-level cache may stay there between two kernels and come at up to five times the memory's
    rate; this advantage vanishes between half of it and all of it.
    """
    moved = least_bytes(shape, LEAST_STATE_BYTES)
    share = np.minimum(np.maximum(2.0 / np.maximum(hardware.cache_bytes, 1.0) * moved - 1.0, 0.2), 1.0)
    return share * moved / hardware.memory_bytes_per_s
