"""Matrix flops of a training step: those in its graph by direction, and those that count for utilisation.

Conventions of utilisation (who uses which: TRAINING.md, section 10):

* `graph`: what the graph holds without recomputation; attention's backward counts twice its forward, as everywhere,
  though FlashAttention's kernel multiplies the scores once more (2.5 times)
* `palm`: 6 N for each token and three times attention without a mask (PaLM, arXiv 2204.02311, appendix B; MosaicML)
* `megatron`: three times the forward's GEMMs of the model itself, head included, attention causal
* `lora`: the same with twice for GEMMs, whose weights are frozen (NVIDIA's tables of LoRA)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.ops import Attention, AttentionBackward, Direction, LoraAdd, Op
from graphsim.units import Num

FLASH_BACKWARD, COUNTED_BACKWARD = 2.5, 2.0
"""Times the forward's flops: those of FlashAttention's backward, and those counted for utilisation."""


def by_direction(graph: nx.DiGraph) -> dict[str, Num]:
    """Matrix flops of forward, recompute, backward and update, repeats multiplied out."""
    total: dict[str, Num] = {direction.value: 0.0 for direction in Direction}
    for op, times in products(graph):
        total[op.direction.value] = total[op.direction.value] + times * op.work().flops
    return total


def products(graph: nx.DiGraph) -> Iterator[tuple[Op, int]]:
    """Every operation whose flops run on matrix units, which excludes the additions of adapters although they count as
    flops.
    """
    for _, op, times in walk(graph):
        if not isinstance(op, LoraAdd):
            yield op, times


def counted(graph: nx.DiGraph, tokens: Num) -> dict[str, Num]:
    """Flops of a micro-batch of this number of tokens that utilisation counts, by convention."""
    total: dict[str, Num] = dict.fromkeys(CONVENTIONS, 0.0)
    for op, times in products(graph):
        for name, of in CONVENTIONS.items():
            total[name] = total[name] + times * of(op, tokens)
    return total


def _of_graph(op: Op, tokens: Num) -> Num:
    if op.direction in (Direction.RECOMPUTE, Direction.UPDATE):
        return 0.0
    flash = isinstance(op, AttentionBackward) and op.recomputes
    return op.work().flops * (COUNTED_BACKWARD / FLASH_BACKWARD if flash else 1.0)


def _of_palm(op: Op, tokens: Num) -> Num:
    if op.direction is not Direction.FORWARD or op.adapter:
        return 0.0
    if not isinstance(op, Attention):
        return 6.0 * op.parameters * tokens
    pairs = op.query_tokens * op.kv_tokens / np.maximum(op.sequences, 1e-9)
    return 6.0 * op.heads * (op.head_dim + op.value_dim) * pairs


def _of_megatron(op: Op, tokens: Num) -> Num:
    return 0.0 if op.direction is not Direction.FORWARD or op.adapter else 3.0 * op.work().flops


def _of_lora(op: Op, tokens: Num) -> Num:
    frozen = 1.0 if isinstance(op, Attention) else 2.0 / 3.0
    return frozen * _of_megatron(op, tokens)


CONVENTIONS: dict[str, Callable[[Op, Num], Num]] = {
    "graph": _of_graph, "palm": _of_palm, "megatron": _of_megatron, "lora": _of_lora,
}  # fmt: skip
