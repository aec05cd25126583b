"""Attention, communication and expert blocks in a graph, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import reduce, singledispatch

import numpy as np

from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.moe import MoeShape
from graphsim.cost.interconnect import runs_own_all_reduce
from graphsim.hardware import Hardware
from graphsim.ops import (
    AllGather,
    AllReduce,
    AllToAll,
    Attention,
    Collective,
    ExpertGemm,
    Op,
    ReduceScatter,
    Sharding,
)
from graphsim.units import Num


@singledispatch
def kinds_of(op: Op) -> tuple[str, ...]:
    """The measured collectives that can serve an operation; none for what nobody measured.

    The vendor's library first; engines replace its all-reduce by their own where they can (`runs_own_all_reduce`) and
    that is faster; vLLM's runs in the captured graph up to 8 MiB (its `device_communicators/custom_all_reduce.py`).
    """
    return ()


@kinds_of.register
def _(op: AllReduce) -> tuple[str, ...]:
    return ("all_reduce", "custom_allreduce")


@kinds_of.register
def _(op: AllGather) -> tuple[str, ...]:
    return ("all_gather",)


@kinds_of.register
def _(op: ReduceScatter) -> tuple[str, ...]:
    return ("reduce_scatter",)


@kinds_of.register
def _(op: AllToAll) -> tuple[str, ...]:
    return ("alltoall",)


def attention_shape(op: Attention) -> AttentionShape:
    """The kernel of a batch of equal requests with as many pairs, cached bytes and flops as the operation.

    Keys and values of unequal widths, or a compressed cache that both come from, count as two of half the
    width read; the heads then carry the flops.
    """
    live = np.maximum(op.sequences, 1e-9)
    queries = 1.0 if op.decode else np.maximum(op.query_tokens / live, 1.0)
    wanted = op.pairs / live / queries + 0.5 * (queries - 1.0)
    keys = np.where(np.greater(op.window, 0), op.kv_tokens / live, wanted)
    width = np.maximum(op.read_width, 1e-9)
    return AttentionShape(
        batch=op.sequences, seq_len=queries, kv_len=keys,
        heads=op.heads * (op.head_dim + op.value_dim) / width, kv_heads=op.kv_heads,
        head_dim=0.5 * width, window=op.window,
        kv_dtype=op.kv.attention, phase="decode" if op.decode else "prefill",
        cached_bytes=op.kv.bytes, activation_bytes=op.activations.bytes,
    )  # fmt: skip


def attention_s(op: Attention, kernel_s: Callable[[AttentionShape], Num]) -> Num:
    """Seconds of an attention kernel in a graph; nothing attended, no time."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(attention_shape(op)), 0.0)


def collective_s(
    op: Collective, measured: Container[str], hardware: Hardware, kernel_s: Callable[[CollectiveShape], Num]
) -> Num:
    """Seconds of a collective in a graph: the library's, or the engine's own of the `measured` where it may serve."""
    library, *own = kinds_of(op)
    serving = [library, *(kind for kind in own if kind in measured)]
    shapes = [CollectiveShape(kind=kind, message_bytes=op.payload_bytes, devices=op.group) for kind in serving]
    library_s, *others = map(kernel_s, shapes)
    if not others or not hardware.links:
        return library_s
    fastest_s = reduce(np.minimum, others, library_s)
    return np.where(runs_own_all_reduce(hardware, op.group), fastest_s, library_s)[()]


def expert_shape(op: ExpertGemm) -> MoeShape:
    """The measured block, from choosing experts to adding up their results, that a product belongs to.

    A block of two matrices instead of three counts as one of three that is two thirds as wide.
    """
    width = op.n / (2.0 if op.gated else 1.0) if op.split is Sharding.COLUMN else op.k
    hidden = op.k if op.split is Sharding.COLUMN else op.n
    held, mine = float(op.of + op.copies), np.maximum(op.experts, 1e-9)
    return MoeShape(
        m=op.tokens, hidden=hidden, inter=width if op.gated else width * (2.0 / 3.0), topk=float(op.chosen),
        experts=held, ep=held / mine, dtype=op.weights.moe, busiest=op.hottest,
        weight_bytes=op.weights.bytes, activation_bytes=op.activations.bytes, distribution="uniform",
        hit=op.hit * held / mine if op.skew or op.copies else None,
    )  # fmt: skip


def expert_s(op: ExpertGemm, kernel_s: Callable[[MoeShape], Num]) -> Num:
    """Seconds of the block that fall to one of its products: a share like that of its weights."""
    share = 1.0 / (3.0 if op.gated else 2.0)
    if op.split is Sharding.COLUMN:
        share = 1.0 - share
    return np.where(np.greater(op.m * op.n * op.k, 0), share * kernel_s(expert_shape(op)), 0.0)
