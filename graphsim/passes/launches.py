"""Launches: without a captured graph, the host starts every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Launch, Op
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchEagerly(Pass):
    """Every kernel waits for the host to start it; the host starts them one after another.

    present: 0 where the step has no tokens, as a micro-batch that no sequence is left for: then nothing is started
    """

    stage: ClassVar[Stage] = "launched"

    present: Num = 1.0

    def rule(self, graph: nx.DiGraph) -> Rule:
        """A LAUNCH ahead of each kernel; one-time work is not part of the step."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if op.launched and not op.once:
                times = op.launches * self.present
                yield f"{name}.launch", Launch(role="launch", times=times, layer=op.layer, adapter=op.adapter), []
                inputs = [*inputs, Value(f"{name}.launch")]
            yield name, op, inputs

        return rule
