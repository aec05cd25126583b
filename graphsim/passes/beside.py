"""Shared experts that run during the exchange of tokens with the devices of the routed experts.

vLLM: `_finalize` of `fused_moe/modular_kernel.py` starts the combine, computes the shared experts, then waits for it.
SGLang: `forward_deepep` of `models/deepseek_v2.py` starts them before the dispatch, on a stream of their own.
They stay on the stream of the other kernels, launched right after the exchange: two kernels that share a device are
assumed to take as long as one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value, inputs_of
from graphsim.ops import ExchangeTokens, GatherTokens, Op, ScatterTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchBeside(Pass):
    """Launches the operations that do not depend on an exchange right after it.

    exchange: `dispatch` or `combine`: the exchange of each layer
    """

    stage: ClassVar[Stage] = "lowered"

    exchange: str

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Launch the independent operations after the exchange, in place of where they were."""
        beside = {name: self._beside(graph, name) for name in self._exchanges(graph)}
        moved = {name for names in beside.values() for name in names}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in moved:
                yield Value(name)
                return
            yield name, op, inputs
            for other in beside.get(name, ()):
                yield other, graph.nodes[other]["op"], inputs_of(graph, other)
            if name in beside:
                yield Value(name)

        return rule

    def _exchanges(self, graph: nx.DiGraph) -> list[str]:
        """The exchange of each layer: the first or the last one."""
        found = dict[int, str]()
        for name, op in graph.nodes(data="op"):
            counts = self.exchange == "combine" or op.layer not in found
            if counts and isinstance(op, ExchangeTokens | GatherTokens | ScatterTokens):
                found[op.layer] = name
        return list(found.values())

    def _beside(self, graph: nx.DiGraph, exchange: str) -> list[str]:
        """Operations that the layer launches later although they do not depend on the exchange."""
        names = list(graph)
        waiting, layer = nx.descendants(graph, exchange), graph.nodes[exchange]["op"].layer
        later = names[names.index(exchange) + 1 :]
        return [name for name in later if name not in waiting and graph.nodes[name]["op"].layer == layer]
