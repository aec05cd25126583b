"""Attention over all keys, or a window of them, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.roofline import compute_s
from graphsim.hardware import Hardware
from graphsim.ops import Attention, Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """By an encoder's kernels where queries see all keys of a prompt and such kernels were measured."""
    if not isinstance(op, Attention) or not op.kv.attention or not parameters["attention"]:
        return None
    if not op.causal and not op.decode and parameters["encoder_attention"]:
        from graphsim.cost.blocks.encoder_attention import encoder_s

        return np.maximum(encoder_s(op, kernel_s), compute_s(op, op.work(), hardware))
    return np.maximum(attention_s(op, kernel_s), compute_s(op, op.work(), hardware))


def attention_s(op: Attention, kernel_s: Callable[[AttentionShape], Num]) -> Num:
    """Seconds of an attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(attention_shape(op)), 0.0)


def attention_shape(op: Attention) -> AttentionShape:
    """The kernel for a batch of equal requests with the pairs, cached bytes and flops of the operation.

    Keys and values of different widths, or a compressed cache that both come from, count as two of half the width read;
    the heads then account for the flops.
    """
    queries, keys = queries_and_keys(op)
    width = np.maximum(op.read_width, 1e-9)
    return AttentionShape(
        batch=op.sequences, seq_len=queries, kv_len=keys,
        heads=op.heads * (op.head_dim + op.value_dim) / width, kv_heads=op.kv_heads,
        head_dim=0.5 * width, window=op.window,
        kv_dtype=op.kv.attention, phase="decode" if op.decode else "prefill",
        cached_bytes=op.kv.bytes, activation_bytes=op.activations.bytes,
    )  # fmt: skip


def queries_and_keys(op: Attention) -> tuple[Num, Num]:
    """Queries per request of equally many equal requests, and keys that the last query sees."""
    live = np.maximum(op.sequences, 1e-9)
    queries = 1.0 if op.decode else np.maximum(op.query_tokens / live, 1.0)
    wanted = op.pairs / live / queries + 0.5 * (queries - 1.0)
    return queries, np.where(np.greater(op.window, 0), op.kv_tokens / live, wanted)
