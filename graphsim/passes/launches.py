"""Launches: without a captured graph, the host starts every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Collective, Launch, Op
from graphsim.units import Num


@dataclass(frozen=True, slots=True)
class LaunchEagerly(Pass):
    """Every kernel waits for the host to start it; the host starts them one after another."""

    stage: ClassVar[Stage] = "launched"

    def rule(self, graph: nx.DiGraph) -> Rule:
        """A LAUNCH ahead of each kernel; one-time work is not part of the step."""
        return _launched


def _launched(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
    if op.launched and not op.once:
        times = _present(op) if isinstance(op, Collective) else getattr(op, "launches", 1.0)
        yield f"{name}.launch", Launch(role="launch", times=times, layer=op.layer), []
        inputs = [*inputs, Value(f"{name}.launch")]
    yield name, op, inputs


def _present(op: Collective) -> Num:
    """Whether there is anything to exchange, and anyone to exchange it with."""
    return np.minimum(op.elems, 1.0) * np.minimum(op.group - 1.0, 1.0)
