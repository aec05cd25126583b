"""Memory of the buffers that hold all adapter slots, as the allocator rounds them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import networkx as nx
import numpy as np

from graphsim.deployment.allocator import allocated_bytes
from graphsim.ops import Repeat
from graphsim.units import Num


def reserved_bytes(graph: nx.DiGraph, slots: Num, shape: tuple[int, ...] = ()) -> Num:
    """Bytes that the allocator reserves for one tensor per buffer that holds all slots, layer by layer.

    shape: () for single numbers, otherwise the shape of the scenarios
    """
    found = [allocated_bytes(_buffers(graph, slots, scenario)) for scenario in range(math.prod(shape))]
    return np.array(found) if shape else found[0]


def _buffers(graph: nx.DiGraph, slots: Num, scenario: int) -> Iterator[float]:
    for _, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            body = list(_buffers(op.body, slots, scenario))
            for _ in range(op.times):
                yield from body
        elif op.buffers:
            parameters = max(_at(op.parameters, scenario), 1.0)
            each = _at(slots, scenario) * _at(op.weight_storage_bytes, scenario) / parameters
            yield from (each * _at(elems, scenario) for elems in op.buffers)


def _at(value: Num, scenario: int) -> float:
    return float(value if np.ndim(value) == 0 else value[scenario])  # type: ignore[index]
