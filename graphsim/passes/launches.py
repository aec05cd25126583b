"""Launches: without a captured graph, the host starts every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Launch, Op


@dataclass(frozen=True, slots=True)
class LaunchEagerly(Pass):
    """Every kernel waits for the host to start it; the host starts them one after another."""

    stage: ClassVar[Stage] = "launched"

    def rule(self, graph: nx.DiGraph) -> Rule:
        """A LAUNCH ahead of each kernel; one-time work is not part of the step."""
        return _launched


def _launched(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
    if op.launched and not op.once:
        yield f"{name}.launch", Launch(role="launch", times=op.launches, layer=op.layer, adapter=op.adapter), []
        inputs = [*inputs, Value(f"{name}.launch")]
    yield name, op, inputs
