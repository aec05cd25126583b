"""Launches: without a captured graph, the host launches every kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.lora.calls import PLAIN, ModuleCall
from graphsim.ops import Launch, Op
from graphsim.passes.eager import by_kind, calls_base, further, kind_of, turns
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchEagerly(Pass):
    """Every kernel waits for the host to launch it; the host launches them one after another.

    present: 0 if the step has no tokens, such as an empty micro-batch, so that nothing is launched
    adapted: 0 if no token has an adapter, so that no adapter kernel is launched
    call_s: host time in seconds of each Python call of an operation or a module
    calls: number of kernels and modules of an operation, by its kind, where modules run one by one

    The further kernels of a module come before the operation itself, which waits for them, as the module's kernels run
    one after another. Adapter operations state their own.
    """

    stage: ClassVar[Stage] = "launched"

    present: Num = 1.0
    adapted: Num = 1.0
    call_s: float = 0.0
    calls: tuple[ModuleCall, ...] = ()

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Add a LAUNCH before each kernel; none for one-time work, which is not part of the step, and none without
        rows.
        """
        calls = by_kind(self.calls)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if op.launched and not op.once and not op.idle:
                for part, steps in further(op, calls) if calls_base(op) else ():
                    yield from self._started(f"{name}.{part}", steps, inputs, calls, [])
                    inputs = [*inputs, Value(f"{name}.{part}")]
                awaited = [Value(value.node) for value in inputs if _host_waits(graph, value)]
                yield from self._started(name, op, inputs, calls, awaited)
            else:
                yield name, op, inputs

        return rule

    def _started(
        self, name: str, op: Op, inputs: list[Value], calls: Mapping[str, ModuleCall], awaited: list[Value]
    ) -> Iterator[Step]:
        """A kernel after its launch, before which the host waits for the given results."""
        times = op.launches * self.present * (self.adapted if op.adapter else 1.0)
        call = calls.get(kind_of(op), PLAIN)
        modules = call.modules * (turns(op) * self.present if calls_base(op) else times / call.kernels)
        called_s = self.call_s * (times + modules)
        launch = Launch(role="launch", times=times, called_s=called_s, layer=op.layer, adapter=op.adapter)
        yield f"{name}.launch", launch, awaited
        yield name, op, [*inputs, Value(f"{name}.launch")]


def _host_waits(graph: nx.DiGraph, value: Value) -> bool:
    """Whether the host reads a value before it continues."""
    return value.node in graph and bool(graph.nodes[value.node]["op"].host_waits)
