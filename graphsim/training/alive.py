"""Peak bytes alive within a turn: values until their last use, saved values, temporaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import networkx as nx
import numpy as np

from graphsim.ops import Collective, Join, KeptValue, KvCache, Launch, Op, OutsideValue
from graphsim.units import Num

Temporary = Callable[[Op], Num]


@dataclass(frozen=True, slots=True, kw_only=True)
class Storages:
    """A turn's storages that are not ordinary values.

    stays: bytes of each node's result that outlive the turn
    appears: bytes of further storages that it creates
    outside: bytes that exist from the start, each until its node's last use, unless `held`
    """

    stays: Mapping[str, Num] = field(default_factory=dict)
    appears: Mapping[str, Num] = field(default_factory=dict)
    outside: Mapping[str, Num] = field(default_factory=dict)
    held: bool = False


def peak_bytes(graph: nx.DiGraph, storages: Storages, temporary: Temporary) -> Num:
    """Peak bytes alive in one run of a graph.

    temporary: bytes that exist only while an operation runs
    """
    last = last_uses(graph)
    alive: Num = sum(storages.outside.values(), start=0.0)
    peak: Num = alive
    dying: dict[int, list[Num]] = {}
    for place, (name, op) in enumerate(graph.nodes(data="op")):
        if name in storages.outside:
            if not storages.held:
                dying.setdefault(last[name], []).append(storages.outside[name])
        else:
            size, stays = result_bytes(op), storages.stays.get(name, 0.0)
            alive = alive + size + storages.appears.get(name, 0.0)
            dying.setdefault(last[name], []).append(np.maximum(size - stays, 0.0))
            peak = np.maximum(peak, alive + temporary(op))
        for dead in dying.pop(place, ()):
            alive = alive - dead
    return peak


def result_bytes(op: Op) -> Num:
    """New memory that a result takes; none for a view, and none for weights' gradients, which are counted
    separately.
    """
    if isinstance(op, KeptValue):
        return op.memory_bytes if op.again and op.what else 0.0
    if passes_on(op) or op.ends or isinstance(op, OutsideValue | Launch):
        return 0.0
    if isinstance(op, Collective):
        return np.where(op.is_view, 0.0, op.out_elems * op.activations.bytes)[()]
    return op.out_elems * op.activations.bytes


def passes_on(op: Op) -> bool:
    """Whether the result is a view of its inputs, whose lifetimes it extends."""
    return isinstance(op, KvCache | Join) or (isinstance(op, KeptValue) and op.again and not op.what)


def last_uses(graph: nx.DiGraph) -> dict[str, int]:
    """The position of the last use of each value, including uses of its views; the turn's result lives to its end."""
    places = {name: place for place, name in enumerate(graph)}
    last: dict[str, int] = {}
    for name in reversed(list(graph)):
        uses = [last[user] if passes_on(graph.nodes[user]["op"]) else places[user] for user in graph.successors(name)]
        last[name] = max(uses, default=places[name])
    *_, result = graph
    last[result] = len(places)
    return last
