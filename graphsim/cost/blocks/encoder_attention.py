"""Attention in which every query sees all keys, as a shape of the measured kernels of encoders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.families.encoder_attention import EncoderShape
from graphsim.ops import Attention
from graphsim.units import Num


def encoder_s(op: Attention, kernel_s: Callable[[EncoderShape], Num]) -> Num:
    """Seconds of an encoder's attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(encoder_shape(op)), 0.0)


def encoder_shape(op: Attention) -> EncoderShape:
    """The kernel of a batch of equal pieces with as many queries and pairs as an operation whose queries see all keys.

    Values of another width than the keys' count as both of the mean.
    """
    queries = np.maximum(op.query_tokens, 1e-9)
    return EncoderShape(
        batch=op.sequences, seq_len=op.query_tokens / np.maximum(op.sequences, 1e-9), kv_len=op.pairs / queries,
        heads=op.heads, head_dim=0.5 * (op.head_dim + op.value_dim), dtype=op.kv.attention,
    )  # fmt: skip
