"""Seconds of a step by part, from priced graphs: max-plus over the streams for compute, network and host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.graph.schedule import forward, initial_state, latest
from graphsim.ops import Collective, Direction, Op, Repeat
from graphsim.training.sections import Section, direction_of, sections_of
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """Seconds of one micro-batch on one stage; its parts add up to `total_s`.

    exposed_s: time of exposed collectives within the stage, of tensor and sequence parallelism
    weight_s: the part of the backward pass for weight gradients, which some pipeline schedules postpone
    """

    forward_s: Num
    recompute_s: Num
    backward_s: Num
    exposed_s: Num
    weight_s: Num

    @property
    def total_s(self) -> Num:
        """Seconds from the first launch to the last gradient."""
        return self.forward_s + self.recompute_s + self.backward_s + self.exposed_s

    @property
    def forward_share(self) -> Num:
        """The forward pass's share of the whole."""
        return self.forward_s / np.maximum(self.forward_s + self.recompute_s + self.backward_s, 1e-30)

    @property
    def until_loss_s(self) -> Num:
        """The forward pass with its part of the exposed collectives."""
        return self.forward_s + self.exposed_s * self.forward_share

    @property
    def behind_loss_s(self) -> Num:
        """The backward pass including recomputation, with its part of the exposed collectives."""
        return self.total_s - self.until_loss_s


def micro_batch_s(graph: nx.DiGraph) -> tuple[MicroBatch, dict[str, Num]]:
    """The times of a priced graph of forward and backward, and those of one turn of each section, by its name."""
    times, alone_times = dict[str, tuple[Num, Num]](), dict[str, tuple[Num, Num]]()
    alone = without_collectives(graph)
    whole_s = latest(forward(graph, initial_state(graph), times).values())
    alone_s = whole_s
    if alone is graph:
        alone_times = times
    else:
        alone_s = latest(forward(alone, initial_state(alone), alone_times).values())
    ends = [
        finish
        for name, (_, finish) in alone_times.items()
        if direction_of(alone.nodes[name]["op"]) is Direction.FORWARD
    ]
    forward_s = latest(ends) if ends else 0.0
    behind_s = alone_s - forward_s
    again_s = np.minimum(busy_s(alone, Direction.RECOMPUTE), behind_s)
    found = MicroBatch(
        forward_s=forward_s,
        recompute_s=again_s,
        backward_s=behind_s - again_s,
        exposed_s=whole_s - alone_s,
        weight_s=np.minimum(busy_s(alone, Direction.BACKWARD, weights=True), behind_s),
    )
    return found, {section.name: span_s(section, times) for section in sections_of(graph)}


def span_s(section: Section, times: Mapping[str, tuple[Num, Num]]) -> Num:
    """Seconds of one turn of a section, from the start of its first kernel to the end of its last."""
    if section.repeated:
        start, finish = times[section.name]
        return (finish - start) / section.times
    kernels = [name for name, op in section.ops() if op.launched and name in times]
    if not kernels:
        return 0.0
    return latest(times[name][1] for name in kernels) - earliest(times[name][0] for name in kernels)


def earliest(values: Iterable[Num]) -> Num:
    """The elementwise minimum."""
    return reduce(np.minimum, values)


def without_collectives(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with collectives of zero time; the same graph if it has none."""
    if not any(isinstance(op, Collective) for _, op, _ in walk(graph)):
        return graph
    out = nx.DiGraph()
    for name, data in graph.nodes(data=True):
        op = data["op"]
        if isinstance(op, Repeat):
            data = {**data, "op": replace(op, body=without_collectives(op.body))}
        elif isinstance(op, Collective):
            data = {**data, "latency_s": 0.0}
        out.add_node(name, **data)
    out.add_edges_from(graph.edges(data=True))
    return out


def busy_s(graph: nx.DiGraph, direction: Direction, *, weights: bool = False) -> Num:
    """Total time of the device's kernels of one direction.

    weights: only those that compute gradients of weights
    """
    total: Num = 0.0
    for _, data in graph.nodes(data=True):
        op = data["op"]
        if isinstance(op, Repeat):
            total = total + op.times * busy_s(op.body, direction, weights=weights)
        elif _counts(op, direction) and (op.ends or not weights):
            total = total + data["latency_s"]
    return total


def _counts(op: Op, direction: Direction) -> bool:
    """Whether an operation is a kernel of the device in that direction."""
    return op.direction is direction and op.launched and not isinstance(op, Collective)
