"""Adapters as modules of a framework (PEFT): every factor, scaling and addition is a kernel of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Elementwise, ExpertGemm, LoraAdd, Op
from graphsim.ops.lora import LoraA, LoraGemm
from graphsim.ops.lora_experts import ExpertLoraAdd, LoraDelta
from graphsim.passes.engine import Engine, back_to, source, terms


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteExperts(Pass):
    """Experts' adapters as PEFT runs them: in every forward, W + B A of all experts is written, and then used.

    PEFT 0.21, `tuners/lora/layer.py`, ParamWrapper (`target_parameters`): a parametrisation of the whole tensor.
    """

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Factors vanish, and the base's result stands for their sum."""
        downs: dict[str, LoraA] = {}
        stand_in: dict[str, int] = {}
        for name, op in graph.nodes(data="op"):
            if isinstance(op, ExpertLoraAdd):
                values = inputs_of(graph, name)
                up, base = terms(graph, name)
                a, behind = back_to(graph, values[up].node, LoraA)
                downs[source(graph, values[base].node)] = graph.nodes[a]["op"]
                ahead = _ahead_of(graph, a)
                stand_in |= dict.fromkeys((*ahead, a, *behind), 0) | {name: base}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in stand_in:
                yield inputs[stand_in[name]]
                return
            if isinstance(op, ExpertGemm) and name in downs:
                yield f"{name}.lora_delta", self._delta(op, downs[name]), []
                inputs = [*inputs, Value(f"{name}.lora_delta")]
            yield name, op, inputs

        return rule

    def _delta(self, op: ExpertGemm, a: LoraA) -> LoraDelta:
        return LoraDelta(
            role=f"{op.role}.lora_delta", n=op.n, k=op.k, rank=a.n * np.minimum(a.m, 1.0), copies=op.experts,
            weights=op.weights, factors=a.weights, scratch_passes=self.engine.profile.merge_passes,
            activations=op.activations, layer=op.layer,
        )  # fmt: skip


def _ahead_of(graph: nx.DiGraph, a: str) -> list[str]:
    """The adapter's nodes between the experts' input and A."""
    found: list[str] = []
    source = inputs_of(graph, a)[0].node
    while graph.nodes[source]["op"].adapter:
        found.append(source)
        source = inputs_of(graph, source)[0].node
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CallModules(Pass):
    """One module call per adapter: A, B, a scaling where the variant has one, and an addition, a kernel each."""

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The scaling stands between the adapter's result and the ADD."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, LoraGemm | LoraAdd):
                op = replace(op, launches=self.engine.lora.active_adapters)
            if type(op) is LoraAdd and self.engine.lora.kind.scaled:
                base, _ = op.serves
                scale = Elementwise(
                    role=f"{base}.lora_scale", elems=op.added, activations=op.activations, layer=op.layer, adapter=True
                )
                scaled = f"{name.rpartition('.')[0]}.lora_scale"
                up, _ = terms(graph, name)
                yield scaled, scale, [inputs[up]]
                inputs = [Value(scaled) if i == up else value for i, value in enumerate(inputs)]
            yield name, op, inputs

        return rule
