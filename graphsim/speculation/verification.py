"""The step that verifies drafted tokens: k + 1 queries of each sequence, by the decode kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Value
from graphsim.graph.rewriting import Rule, Step
from graphsim.graph.stages import Stage
from graphsim.models.phase import Phase
from graphsim.ops import Attention, Op, SparseAttention
from graphsim.units import Num


@dataclass(frozen=True, slots=True)
class SeveralQueries(Pass):
    """Decode kernels with several queries per sequence, packed with the query heads of a key head.

    So do FlashAttention 3 (`pack_gqa`), FlashInfer's and TensorRT-LLM's decode kernels and FlashMLA: the cache is
    read once, and each key head has as many rows as its query heads times the queries. The causal mask among the new
    rows is left out: k (k - 1) / 2 pairs of a sequence.
    queries: of each sequence
    """

    stage: ClassVar[Stage] = "lowered"
    queries: Num

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Attention of generation with the queries among its heads."""

        def packed(name: str, op: Op, inputs: list[Value]) -> Iterable[Step]:
            if isinstance(op, Attention) and op.decode and not isinstance(op, SparseAttention):
                op = replace(
                    op, heads=op.heads * self.queries, query_tokens=op.sequences, pairs=op.kv_tokens, unchecked=True
                )
            yield name, op, inputs

        return packed


def with_queries(phase: Phase, queries: Num, *, last_only: bool = False) -> Phase:
    """A decode step with this number of tokens per sequence.

    last_only: whether logits of the last of them are enough, as where a draft catches up with verified tokens
    """
    segments = tuple(replace(segment, new_tokens=queries) for segment in phase.segments)
    rows = phase.logit_rows if last_only else phase.logit_rows * queries
    return replace(phase, segments=segments, logit_rows=rows, all_logits=not last_only)


def several_queries(graph: nx.DiGraph, queries: Num) -> nx.DiGraph:
    """A step's graph with decode kernels that take this number of queries per sequence."""
    return SeveralQueries(queries=queries)(graph)
