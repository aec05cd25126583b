"""Attention and communication in a graph, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.cost.families import attention, collectives
from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.hardware import Hardware
from graphsim.ops import AllGather, AllReduce, AllToAll, Attention, Collective, ReduceScatter
from graphsim.units import Num

KINDS: dict[type[Collective], tuple[str, ...]] = {
    AllReduce: ("all_reduce", "custom_allreduce"),
    AllGather: ("all_gather",),
    ReduceScatter: ("reduce_scatter",),
    AllToAll: ("alltoall",),
}
"""The measured collectives that can serve an operation. Engines replace NCCL's all-reduce by their own where that
is faster; vLLM's runs in the captured graph up to 8 MiB (its `device_communicators/custom_all_reduce.py`)."""


def attention_shape(op: Attention) -> AttentionShape:
    """The kernel of a batch of equal requests with as many pairs, cached bytes and flops as the operation.

    Keys and values of unequal widths, or a compressed cache that both come from, count as two of half the
    width read; the heads then carry the flops.
    """
    live = np.maximum(op.sequences, 1e-9)
    queries = np.maximum(op.query_tokens / live, 1.0)
    wanted = op.pairs / live / queries + 0.5 * (queries - 1.0)
    keys = np.where(np.greater(op.window, 0), op.kv_tokens / live, wanted)
    width = np.maximum(op.read_width, 1e-9)
    return AttentionShape(
        batch=op.sequences, seq_len=queries, kv_len=keys,
        heads=op.heads * (op.head_dim + op.value_dim) / width, kv_heads=op.kv_heads,
        head_dim=0.5 * width, window=op.window,
        kv_dtype="fp8" if op.kv.bytes < 1.5 else "bfloat16", phase="decode" if op.decode else "prefill",
    )  # fmt: skip


def attention_s(parameters: Mapping[str, Any], hardware: Hardware, op: Attention) -> Num:
    """Seconds of an attention kernel in a graph; nothing attended, no time."""
    time = attention.latency_s(parameters, hardware, attention_shape(op))
    return np.where(np.greater(op.pairs * op.heads, 0), time, 0.0)


def collective_s(parameters: Mapping[str, Any], hardware: Hardware, op: Collective) -> Num:
    """Seconds of a collective in a graph: the fastest measured kernel that can serve it."""
    time: Num = np.inf
    for kind in KINDS[type(op)]:
        if kind in parameters or kind == KINDS[type(op)][0]:
            shape = CollectiveShape(kind=kind, message_bytes=op.payload_bytes, devices=op.group)
            time = np.minimum(time, collectives.latency_s(parameters, hardware, shape))
    return time
