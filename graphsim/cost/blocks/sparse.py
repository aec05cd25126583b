"""Attention over a choice of keys, and the scores that choose them, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters, attention
from graphsim.cost.families.sparse import ATTEND, SCORES, SparseShape
from graphsim.hardware import Hardware
from graphsim.ops import IndexScores, Op, SparseAttention
from graphsim.units import Num

INDEX_KEY_BYTES = {"dsa": 1.0 + 4.0 / 128, "csa": 1.0 + 4.0 / 128}
"""Bytes per element of an indexer's cached key, by method: fp8 with an fp32 scale for each key (DeepSeek-V3.2-Exp's
inference code, `kernel.py`), whatever the format of the rest of the cache; others keep it in the cache's."""


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As attention over the same number of pairs if such kernels were not measured."""
    if not isinstance(op, IndexScores | SparseAttention) or not parameters.get("sparse"):
        return attention.measured_s(op, hardware, parameters, kernel_s)
    return sparse_s(op, kernel_s)


def sparse_s(op: IndexScores | SparseAttention, kernel_s: Callable[[SparseShape], Num]) -> Num:
    """Seconds of a sparse attention kernel in a graph; 0 without query-key pairs."""
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(sparse_shape(op)), 0.0)


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
