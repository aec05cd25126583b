"""The result of a cost model, and the pass that evaluates it for every node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import networkx as nx
import numpy as np

from graphsim.errors import GraphError, GraphsimError
from graphsim.graph.sound import ANNOTATIONS
from graphsim.hardware import Hardware
from graphsim.ops import Op, Repeat
from graphsim.units import Num

BOUNDS = ("none", "compute", "memory", "network", "launch")
"""What limits an operation, in the order of `Cost.bound_index`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cost:
    """Time of one operation and its components, in seconds.

    busy_s: time on the device once the operation runs; its components say what bounds it and need not add up to it
    launch_s: time to launch it
    """

    busy_s: Num
    compute_s: Num = 0.0
    memory_s: Num = 0.0
    network_s: Num = 0.0
    launch_s: Num = 0.0

    @property
    def latency_s(self) -> Num:
        """Busy time plus launch time."""
        return self.busy_s + self.launch_s

    @property
    def bound_index(self) -> Num:
        """Index into BOUNDS of the largest part; 0 without work."""
        parts = [self.compute_s, self.memory_s, self.network_s, self.launch_s]
        largest = reduce(np.maximum, parts)
        index: Num = 0.0
        for i in range(len(parts), 0, -1):
            index = np.where((parts[i - 1] >= largest) & (largest > 0), i, index)
        return index

    @property
    def bound(self) -> str:
        """What bounds the operation; for several scenarios, that of the first."""
        parts = (self.compute_s, self.memory_s, self.network_s, self.launch_s)
        first = [float(part if np.ndim(part) == 0 else np.ravel(part)[0]) for part in parts]
        return BOUNDS[1 + first.index(max(first))] if max(first) > 0 else BOUNDS[0]


class Trusted:
    """A cost model of the library's own: its results are not checked, and it does not change.

    of_rates: whether its prices are formulas of a device's rates
    """

    __slots__ = ()
    of_rates: ClassVar[bool] = False


_WRITTEN = ("cost", "bound", "caution", *ANNOTATIONS)
"""Attributes of graphs and nodes that annotating and scheduling write."""

CostModel = Callable[[Op, Hardware], Cost]
"""A cost model prices one operation on one device; numbers may be arrays over scenarios on either side."""


def annotate(graph: nx.DiGraph, hardware: Hardware, cost: CostModel, caution: str = "") -> nx.DiGraph:
    """A copy of the graph whose nodes also have `cost`, `latency_s` and `bound`, including those in bodies of repeats.

    caution: caveats on these times, stored in the graph under this name if there are any
    Other attributes of the graph and its nodes stay; those of an earlier annotation or schedule are dropped.

    An operation that occurs at many nodes, as in an unrolled graph, is evaluated once.
    Raises HardwareError or GraphError, with the node's name, where an operation cannot be priced.
    """
    out = nx.DiGraph()
    out.graph.update({key: value for key, value in graph.graph.items() if key not in _WRITTEN})
    if caution:
        out.graph["caution"] = caution
    prices: dict[int, dict[str, Any]] = {}
    for name, data in graph.nodes(data=True):
        op = data.get("op")
        out.add_node(name)
        kept = out.nodes[name]
        kept.update({key: value for key, value in data.items() if key not in _WRITTEN})
        if isinstance(op, Repeat):
            kept["op"] = replace(op, body=annotate(op.body, hardware, cost))
            continue
        if id(op) not in prices:
            prices[id(op)] = _priced(name, op, hardware, cost)
        kept.update(prices[id(op)])
    out.add_edges_from(graph.edges(data=True))
    return out


def _priced(name: str, op: Any, hardware: Hardware, cost: CostModel) -> dict[str, Any]:
    if not isinstance(op, Op):
        raise GraphError(f"node '{name}' carries no op; add nodes with graphsim.add")
    try:
        priced = cost(op, hardware)
    except GraphsimError as error:
        error.add_note(f"while pricing node '{name}'")
        raise
    return {"cost": priced, "latency_s": priced.latency_s, "bound": priced.bound}
