"""Memory of activations during a step."""

from __future__ import annotations

from functools import reduce
from typing import Any

import networkx as nx
import numpy as np

from graphsim.ops import Input, Op, Repeat
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


def peak_activation_bytes(graph: nx.DiGraph) -> Num:
    """The peak memory of values alive at the same time, in launch order; a value lives until its last use.

    A view takes no memory; the value behind it lives until the last use of the view.
    Keys and values that attention reads from the cache are not activations and do not count.
    """
    ends = _ends_of_life(graph)
    alive: Num = 0.0
    peak: Num = 0.0
    dying: dict[int, list[tuple[Num, Num]]] = {}
    for place, (name, op) in enumerate(graph.nodes(data="op")):
        inner = peak_activation_bytes(op.body) - _entry_bytes(op) if isinstance(op, Repeat) else 0.0
        size, end = _result_bytes(op), ends[name]
        alive = alive + size
        peak = np.maximum(peak, alive + np.maximum(inner, 0.0))
        for at in {end} if isinstance(end, int) else set(np.ravel(end).tolist()):
            dying.setdefault(at, []).append((size, end))
        for dead, when in dying.pop(place, []):
            alive = alive - (dead if isinstance(when, int) else np.where(np.equal(when, place), dead, 0.0))
    return peak


def _ends_of_life(graph: nx.DiGraph) -> dict[str, Any]:
    """The position of the last use of each value in launch order, including uses of its views; per scenario if these
    differ.
    """
    places = {name: place for place, name in enumerate(graph)}

    def end_of(name: str) -> Any:
        ends: list[Any] = [places[name]] if graph.out_degree(name) == 0 else []
        for user in graph.successors(name):
            view: Any = graph.nodes[user]["op"].is_view
            ends.append(np.where(view, end_of(user), places[user]) if may_be_nonzero(view) else places[user])
        end = reduce(np.maximum, ends)
        return end if np.ndim(end) else int(end)

    return {name: end_of(name) for name in graph}


def _result_bytes(op: Op) -> Num:
    """New memory of the result."""
    if may_be_nonzero(op.state_bytes):
        return 0.0
    taken = op.out_elems * op.activations.bytes
    return np.where(op.is_view, 0.0, taken)[()] if may_be_nonzero(op.is_view) else taken


def _entry_bytes(op: Repeat) -> Num:
    entry = next((inner for _, inner in op.body.nodes(data="op") if isinstance(inner, Input)), None)
    return 0.0 if entry is None else entry.elems * entry.activations.bytes
