"""Attention, communication, expert blocks and other operations of a graph, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from functools import reduce, singledispatch

import numpy as np

from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.encoder_attention import EncoderShape
from graphsim.cost.families.expert_exchange import ExchangeShape, copies
from graphsim.cost.families.hyper_connections import HyperConnectionShape
from graphsim.cost.families.mla_work import MlaShape
from graphsim.cost.families.moe import MoeShape
from graphsim.cost.families.sparse import ATTEND, SCORES, SparseShape
from graphsim.cost.interconnect import runs_own_all_reduce
from graphsim.hardware import Hardware
from graphsim.ops import (
    AllGather,
    AllReduce,
    AllToAll,
    Attention,
    Collective,
    ExchangeTokens,
    ExpertGemm,
    IndexScores,
    MlaAttention,
    Op,
    ReduceScatter,
    Sharding,
    SparseAttention,
)
from graphsim.units import Num


@singledispatch
def kinds_of(op: Op) -> tuple[str, ...]:
    """The measured collectives that can implement an operation; none if it was not measured.

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
    """The kernel for a batch of equal requests with the pairs, cached bytes and flops of the operation.

    Keys and values of different widths, or a compressed cache that both come from, count as two of half the width read;
    the heads then account for the flops.
    """
    queries, keys = _each(op)
    width = np.maximum(op.read_width, 1e-9)
    return AttentionShape(
        batch=op.sequences, seq_len=queries, kv_len=keys,
        heads=op.heads * (op.head_dim + op.value_dim) / width, kv_heads=op.kv_heads,
        head_dim=0.5 * width, window=op.window,
        kv_dtype=op.kv.attention, phase="decode" if op.decode else "prefill",
        cached_bytes=op.kv.bytes, activation_bytes=op.activations.bytes,
    )  # fmt: skip


def _each(op: Attention) -> tuple[Num, Num]:
    """Queries per request of equally many equal requests, and keys that the last query sees."""
    live = np.maximum(op.sequences, 1e-9)
    queries = 1.0 if op.decode else np.maximum(op.query_tokens / live, 1.0)
    wanted = op.pairs / live / queries + 0.5 * (queries - 1.0)
    return queries, np.where(np.greater(op.window, 0), op.kv_tokens / live, wanted)


def latent_shape(op: MlaAttention) -> MlaShape:
    """The kernel of a batch of equal requests over latents, or over the keys and values of all heads expanded from
    them.
    """
    queries, keys = _each(op)
    widths = {"nope": op.head_dim, "rope": 0.0, "value_dim": op.value_dim}
    if op.absorbed:
        widths = {"rank": op.value_dim, "rope": op.head_dim - op.value_dim}
    return MlaShape(
        batch=op.sequences, seq_len=queries, kv_len=keys, heads=op.heads, **widths,
        kv_dtype=op.kv.attention, phase="decode" if op.absorbed else "prefill",
        cached_bytes=op.kv.bytes, activation_bytes=op.activations.bytes,
    )  # fmt: skip


def attention_s(op: Attention, kernel_s: Callable[[AttentionShape], Num]) -> Num:
    """Seconds of an attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(attention_shape(op)), 0.0)


def encoder_shape(op: Attention) -> EncoderShape:
    """The kernel of a batch of equal pieces with as many queries and pairs as an operation whose queries see all keys.

    Values of another width than the keys' count as both of the mean.
    """
    queries = np.maximum(op.query_tokens, 1e-9)
    return EncoderShape(
        batch=op.sequences, seq_len=op.query_tokens / np.maximum(op.sequences, 1e-9), kv_len=op.pairs / queries,
        heads=op.heads, head_dim=0.5 * (op.head_dim + op.value_dim), dtype=op.kv.attention,
    )  # fmt: skip


def encoder_s(op: Attention, kernel_s: Callable[[EncoderShape], Num]) -> Num:
    """Seconds of an encoder's attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(encoder_shape(op)), 0.0)


def hyper_connection_s(op: Op, kernel_s: Callable[[HyperConnectionShape], Num]) -> Num | None:
    """Seconds of one side of a hyper-connection in a graph; None if it was not measured.

    Streams that are not mixed with each other have fewer weights to compute, but are still read and written.
    """
    from graphsim.ops.streams import CollapseStreams, ExpandStreams

    if isinstance(op, CollapseStreams):
        projected, phase = op.projected, "pre"
    elif isinstance(op, ExpandStreams):
        projected, phase = op.streams * (2.0 + op.streams), "post"
    else:
        return None
    return kernel_s(HyperConnectionShape(
        tokens=op.tokens, hidden=op.width, streams=op.streams, projected=projected, phase=phase,
    ))  # fmt: skip


def exchange_s(op: ExchangeTokens, kernel_s: Callable[[ExchangeShape], Num]) -> Num:
    """Seconds of an exchange of tokens with their experts' devices, by the kernels that it names.

    The routing lists are computed before the dispatch, by a separate kernel in some libraries.
    """
    there = ExchangeShape(
        tokens=op.tokens, hidden=op.width, topk=op.chosen, experts=op.experts, ep=op.group, backend=op.kernels,
        phase="dispatch", dtype=EXCHANGED.get(op.activations.compute, "bfloat16"),
    )  # fmt: skip
    rows = np.maximum(op.tokens * op.width * copies(replace(there, ep=np.maximum(op.group, 1.0))), 1e-9)
    there = replace(there, busiest=op.elems / rows)
    if not op.there:
        return kernel_s(replace(there, phase="combine", dtype="bfloat16"))
    return kernel_s(replace(there, phase="prepare")) + kernel_s(there)


EXCHANGED = {"fp8": "fp8", "nvfp4": "nvfp4", "fp4": "nvfp4"}
"""The dtype of exchanged rows, by the format in which they are multiplied; 16 bits for all others."""
INDEX_KEY_BYTES = {"dsa": 1.0 + 4.0 / 128, "csa": 1.0 + 4.0 / 128}
"""Bytes per element of an indexer's cached key, by method: fp8 with an fp32 scale for each key (DeepSeek-V3.2-Exp's
inference code, `kernel.py`), whatever the format of the rest of the cache; others keep it in the cache's."""


def sparse_shape(op: IndexScores | SparseAttention) -> SparseShape:
    """The kernel of an operation; latents replace keys and values if the kernel gathers them."""
    scores = isinstance(op, IndexScores)
    key_bytes = INDEX_KEY_BYTES.get(op.method, op.kv.bytes) if scores else op.kv.bytes
    latent = 0 if isinstance(op, IndexScores) else op.latent_width
    values = op.value_dim if isinstance(op, IndexScores) or not op.latent_width else op.latent_values
    return SparseShape(
        part=SCORES if scores else ATTEND, method=op.method, phase="decode" if op.decode else "prefill",
        queries=op.query_tokens, keys=op.kv_tokens, pairs=op.pairs, heads=op.heads,
        kv_heads=1.0 if latent else op.kv_heads, head_dim=latent or op.head_dim, value_dim=values,
        slots=0.0 if isinstance(op, IndexScores) else op.slots,
        row_bytes=key_bytes * (latent or (op.head_dim if scores else op.read_width)), kv_dtype=op.kv.attention,
    )  # fmt: skip


def sparse_s(op: IndexScores | SparseAttention, kernel_s: Callable[[SparseShape], Num]) -> Num:
    """Seconds of a sparse attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(sparse_shape(op)), 0.0)


def collective_s(
    op: Collective, measured: Container[str], hardware: Hardware, kernel_s: Callable[[CollectiveShape], Num]
) -> Num:
    """Seconds of a collective in a graph: the library's, or the engine's own among the `measured` ones if it can be
    used.
    """
    library, *own = kinds_of(op)
    serving = [library, *(kind for kind in own if kind in measured)]
    shapes = [
        CollectiveShape(kind=kind, message_bytes=op.payload_bytes, devices=op.group, stride=op.stride)
        for kind in serving
    ]
    library_s, *others = map(kernel_s, shapes)
    if not others or not hardware.links:
        return library_s
    fastest_s = reduce(np.minimum, others, library_s)
    return np.where(runs_own_all_reduce(hardware, op.group, op.stride), fastest_s, library_s)[()]


def expert_shape(op: ExpertGemm) -> MoeShape:
    """The measured block that a GEMM belongs to, from the choice of experts to the sum of their results.

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
    """The share of the block's seconds for one of its GEMMs, in proportion to its weights."""
    share = 1.0 / (3.0 if op.gated else 2.0)
    if op.split is Sharding.COLUMN:
        share = 1.0 - share
    return np.where(np.greater(op.m * op.n * op.k, 0), share * kernel_s(expert_shape(op)), 0.0)
