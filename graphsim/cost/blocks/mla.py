"""Attention over a compressed cache, as shapes of the measured kernels."""

from __future__ import annotations

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters, attention
from graphsim.cost.families import mla
from graphsim.cost.families.mla_work import MlaShape
from graphsim.hardware import Hardware
from graphsim.ops import MlaAttention, Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As attention with the same work if no similar latent kernel was measured."""
    fitted = parameters.get("mla")
    if not isinstance(op, MlaAttention) or not op.kv.attention or not fitted:
        return attention.measured_s(op, hardware, parameters, kernel_s)
    shape = latent_shape(op)
    if mla.measured_absorbed(fitted, shape):
        return attention.measured_s(op, hardware, parameters, kernel_s)
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(shape), 0.0)


def latent_shape(op: MlaAttention) -> MlaShape:
    """The kernel of a batch of equal requests over latents, or over the keys and values of all heads expanded from
    them.
    """
    queries, keys = attention.queries_and_keys(op)
    widths = {"nope": op.head_dim, "rope": 0.0, "value_dim": op.value_dim}
    if op.absorbed:
        widths = {"rank": op.value_dim, "rope": op.head_dim - op.value_dim}
    return MlaShape(
        batch=op.sequences, seq_len=queries, kv_len=keys, heads=op.heads, **widths,
        kv_dtype=op.kv.attention, phase="decode" if op.absorbed else "prefill",
        cached_bytes=op.kv.bytes, activation_bytes=op.activations.bytes,
    )  # fmt: skip
