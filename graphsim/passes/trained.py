"""Which weights a method trains, marked on the operations that own them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Embedding, Gemm, LoraA, LoraGemm, Op, Route
from graphsim.ops.lora_variants import DoraNorm
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


def mark_trained(
    graph: nx.DiGraph,
    base: bool,
    adapters: bool,
    embeddings: bool = True,
    freeze_a: bool = False,
    others: bool = False,
) -> nx.DiGraph:
    """The graph, with `trained` set on operations whose weights training changes.

    base: whether the model's own weights are trained; embeddings: whether its tables are too (a head that shares one
        follows it)
    adapters: whether an adapter's weights are trained: those that its variant does not freeze, and what it trains
        in addition to them
    A router's score corrections are set by rule, not by gradients.
    freeze_a: whether LoRA's A is frozen (LoRA-FA, arXiv 2308.03303)
    others: whether the model's weights without an adapter are trained in addition to adapters (ReLoRA)
    """
    return MarkTrained(base=base, adapters=adapters, embeddings=embeddings, freeze_a=freeze_a, others=others)(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkTrained(Pass):
    """Marks what is trained; see `mark_trained`."""

    stage: ClassVar[Stage] = "logical"

    base: bool
    adapters: bool
    embeddings: bool = True
    freeze_a: bool = False
    others: bool = False

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Each operation separately; if `others` are trained, a GEMM with an adapter is frozen."""
        frozen = _adapted(graph) if self.others else {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            trained = self._share(op) * (1.0 - (0.0 if op.adapter else frozen.get(name, 0.0)))
            yield name, replace(op, trained=trained) if may_be_nonzero(trained) else op, inputs

        return rule

    def _share(self, op: Op) -> Num:
        if op.adapter:
            if not self.adapters or (self.freeze_a and isinstance(op, LoraA)):
                return 0.0
            present: Num = np.minimum(getattr(op, "adapters", 1.0), 1.0)
            if isinstance(op, DoraNorm):  # magnitudes, which exist without a rank
                present = present * np.minimum(op.rank, 1.0)
            if isinstance(op, LoraGemm) and may_be_nonzero(op.trainable_parameters):
                return not_empty(op) * present
            return np.minimum(op.trainable_parameters, 1.0) * present
        if not (self.base or self.others) or isinstance(op, Route) or (not self.embeddings and _is_table(op)):
            return 0.0
        return 1.0 if _is_table(op) or may_be_nonzero(op.parameters) else 0.0


def not_empty(factor: LoraGemm) -> Num:
    """1 if a factor has weights, 0 if its rank is 0; as a formula, the same one for the factors of all GEMMs."""
    there: Num = np.minimum(np.ceil(factor.n), 1.0) * np.minimum(np.ceil(factor.k), 1.0)
    return there


def _adapted(graph: nx.DiGraph) -> dict[str, Num]:
    """The GEMMs that an adapter is on, by name, each with whether it has a rank."""
    factors = {name: op for name, op in graph.nodes(data="op") if isinstance(op, LoraA)}
    return {name.removesuffix(".lora_a"): np.minimum(op.n, 1.0) for name, op in factors.items()}


def _is_table(op: Op) -> bool:
    """Whether its weights are an embedding's, though not counted as its own."""
    return isinstance(op, Embedding) or (isinstance(op, Gemm) and op.head and op.shared)
