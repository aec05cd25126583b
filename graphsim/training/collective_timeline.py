"""One micro-batch with its data-parallel collectives: compute and network as two streams, unit by unit.

A unit's weights are gathered before it runs; those of the next are prefetched meanwhile, as far as the limit on
gathered units allows; gradients are reduced after it. Exposed time follows from the schedule: the first gather,
collectives that take longer than the concurrent compute, and the last reduction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import networkx as nx
import numpy as np

from graphsim.graph import add
from graphsim.ops import Direction, Input, Join, Op, Repeat
from graphsim.ops.custom import Compute
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.training.data_parallel import DataParallelSteps, Price, Sent, UnitSteps
from graphsim.training.overlap import PLAIN, Beside, slowed_s
from graphsim.units import Num

NOWHERE = -1
"""The unit index after the last one, for which nothing is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataParallelTimes:
    """Seconds of a step without its optimizer.

    each_s: of a micro-batch
    last_s: of the last one
    update_s: of exposed collectives after the optimizer
    compute_s: of a micro-batch without any collective; exposed_s: time that collectives add to the step
    """

    each_s: Num
    last_s: Num
    update_s: Num
    compute_s: Num
    micro_batches: Num

    @property
    def step_s(self) -> Num:
        """All micro-batches, and the collectives after the optimizer."""
        return (self.micro_batches - 1.0) * self.each_s + self.last_s + self.update_s

    @property
    def exposed_s(self) -> Num:
        """Time that collectives add."""
        return self.step_s - self.micro_batches * self.compute_s


def times_of(
    steps: DataParallelSteps, price: Price, micro_batches: Num = 1.0, beside: Beside = PLAIN
) -> DataParallelTimes:
    """The times of a step with its collectives.

    price: seconds of a collective; units have their compute times (`HeldUnit.forward_s`, `backward_s`)
    beside: how much of a collective may overlap with compute, and the slowdown
    """
    units = [steps.unit for steps in steps.units]
    forward_s = sum((unit.times * unit.forward_s for unit in units), start=0.0)
    backward_s = sum((unit.times * unit.backward_s for unit in units), start=0.0)
    last_s = micro_batch_s(steps, price, last=True, beside=beside)
    return DataParallelTimes(
        each_s=last_s if steps.every else micro_batch_s(steps, price, last=False, beside=beside),
        last_s=last_s,
        update_s=_update_s(steps, price, forward_s, beside),
        compute_s=forward_s + backward_s,
        micro_batches=micro_batches,
    )


def micro_batch_s(steps: DataParallelSteps, price: Price, *, last: bool, beside: Beside = PLAIN) -> Num:
    """Seconds of a micro-batch: the end of `timeline`'s graph, turn by turn without one."""
    if not may_be_nonzero(steps.sent_bytes()):
        return sum((each.unit.times * (each.unit.forward_s + each.unit.backward_s) for each in steps.units), start=0.0)
    compute: Num = 0.0
    network: Num = 0.0
    for turns in _passes(steps, last=last):
        order, fetched = _order(turns, steps.in_flight)
        taken = [_Seconds.of(turn, price) for turn in turns]
        queue: list[Num] = []
        for i in order[: steps.in_flight - 1]:
            network = np.maximum(network, compute) + taken[i].gather
            queue.append(network)
        for i, fetch in zip(order, fetched, strict=True):
            turn, own, later = turns[i], taken[i], 0.0 if fetch == NOWHERE else taken[fetch].gather
            network = np.maximum(network, compute) + later
            queue.append(network)
            ready = queue.pop(0)
            if not turns[i].gathers:
                ready = compute
            busy_s = slowed_s(turn.compute_s, (later if steps.in_flight > 1 else 0.0) + own.reduce, beside)
            compute = np.maximum(compute, ready) + busy_s
            if turn.reduces:
                network = np.maximum(network, compute) + own.reduce
    return np.maximum(compute, network)


@dataclass(frozen=True, slots=True, eq=False)
class _Seconds:
    """Seconds of a turn's collectives."""

    gather: Num
    reduce: Num

    @classmethod
    def of(cls, turn: _Turn, price: Price) -> _Seconds:
        """Priced once for all turns."""
        gather, reduce = (
            sum((one.seconds(price) for one in sends), start=0.0) for sends in (turn.gathers, turn.reduces)
        )
        return cls(gather, reduce)


def _update_s(steps: DataParallelSteps, price: Price, forward_s: Num, beside: Beside) -> Num:
    """Exposed gather of updated weights: all of it, or the part that the next forward pass does not hide; at least one
    part.
    """
    whole_s = sum((sent.seconds(price) for sent in steps.update), start=0.0)
    if not steps.hidden:
        return whole_s
    parts = sum((sent.times for sent in steps.update), start=0.0)
    hidden_s = np.minimum(beside.overlap * whole_s, forward_s)
    return np.maximum(whole_s - hidden_s, whole_s / np.maximum(parts, 1.0))


def timeline(steps: DataParallelSteps, price: Price, *, last: bool, beside: Beside = PLAIN) -> nx.DiGraph:
    """The graph of one micro-batch, with `latency_s` on every node: `forward.layers`, `backward.layers`, …

    last: whether it is the step's last one, after which gradients are always reduced
    """
    out = nx.DiGraph()
    forward, backward = _passes(steps, last=last)
    behind = _pass(out, "forward", forward, steps.in_flight, price, beside, "")
    _pass(out, "backward", backward, steps.in_flight, price, beside, behind)
    return out


def _passes(steps: DataParallelSteps, *, last: bool) -> tuple[list[_Turn], list[_Turn]]:
    """The turns of the forward and of the backward pass."""
    reduces = last or steps.every
    forward = [_Turn(each, each.forward, (), each.unit.forward_s) for each in steps.units]
    backward = [
        _Turn(each, each.backward, each.reduce if reduces else (), each.unit.backward_s)
        for each in reversed(steps.units)
    ]
    return forward, backward


def _order(turns: Sequence[_Turn], in_flight: int) -> tuple[list[int], list[int]]:
    """The order of the turns, and the unit whose weights are fetched during each: its own without prefetching."""
    order = [i for i, turn in enumerate(turns) for _ in range(turn.steps.unit.times)]
    ahead = min(in_flight - 1, len(order))
    return order, [*order[ahead:], *[NOWHERE] * ahead]


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A unit's forward or backward pass, with the gathers before it and the reductions after it."""

    steps: UnitSteps
    gathers: Sequence[Sent]
    reduces: Sequence[Sent]
    compute_s: Num


def _pass(
    out: nx.DiGraph, name: str, turns: Sequence[_Turn], in_flight: int, price: Price, beside: Beside, behind: str
) -> str:
    """Add a pass in one direction after a node, and return its last one."""
    order, fetched_too = _order(turns, in_flight)
    ahead = in_flight - 1
    body = _Bodies(turns, name, ahead, price, beside)
    after = [behind] if behind else []
    for register, i in enumerate(order[:ahead], start=1):
        fetched = list(body.sent(out, f"{name}.first{register}", turns[i].gathers, after))
        add(out, f"{name}.first{register}.whole", Join(elems=0.0, stream=_register(register)), [*after, *fetched])
        out.nodes[f"{name}.first{register}.whole"]["latency_s"] = 0.0
    counts = dict[str, int]()
    for (i, fetch), run in groupby(zip(order, fetched_too, strict=True)):
        unit = turns[i].steps.unit.name
        counts[unit] = counts.get(unit, 0) + 1
        node = f"{name}.{unit}" + (f"_{counts[unit]}" if counts[unit] > 1 else "")
        behind = add(out, node, Repeat(body=body.of(i, fetch), times=len(list(run))), [behind] if behind else [])
    return behind


def _register(number: int) -> str:
    """The stream that stores when the weights of the unit `number` turns ahead are gathered."""
    return f"whole{number}"


@dataclass(frozen=True, slots=True, eq=False)
class _Bodies:
    """Turns as bodies of repeats."""

    turns: Sequence[_Turn]
    name: str
    ahead: int
    price: Price
    beside: Beside

    def sent(self, graph: nx.DiGraph, name: str, sends: Sequence[Sent], after: list[str]) -> Iterator[str]:
        """Add collectives in sequence after some nodes."""
        for i, one in enumerate(sends):
            node = add(graph, f"{name}.{one.op.role}" + (f"_{i}" if i else ""), one.op, after)
            graph.nodes[node]["latency_s"] = one.seconds(self.price)
            yield node

    def of(self, number: int, fetch: int) -> nx.DiGraph:
        """A turn: prefetch for the unit `ahead` turns later, wait for its own weights, compute, reduce."""
        turn, graph = self.turns[number], nx.DiGraph()
        add(graph, "in", Input(elems=0.0))
        own = [] if self.ahead else list(self.sent(graph, "own", turn.gathers, ["in"]))
        later = () if fetch == NOWHERE or not self.ahead else self.turns[fetch].gathers
        if self.ahead:
            own = [add(graph, "whole", Join(elems=0.0, stream=_register(1)), ["in"])]
            for i in range(2, self.ahead + 1):
                read = add(graph, f"read{i}", Join(elems=0.0, stream=_register(i)), ["in"])
                add(graph, f"moved{i}", Join(elems=0.0, stream=_register(i - 1)), [read])
            fetched = list(self.sent(graph, "next", later, ["in"]))
            add(graph, "fetched", Join(elems=0.0, stream=_register(self.ahead)), ["in", *fetched])
        direction = Direction.FORWARD if self.name == "forward" else Direction.BACKWARD
        compute: Op = Compute(role=turn.steps.unit.name, elems=0.0, reads=0.0, unchecked=True, direction=direction)
        add(graph, "compute", compute, ["in", *own])
        beside_s = sum((one.seconds(self.price) for one in (*later, *turn.reduces)), start=0.0)
        graph.nodes["compute"]["latency_s"] = slowed_s(turn.compute_s, beside_s, self.beside)
        list(self.sent(graph, "behind", turn.reduces, ["compute"]))
        add(graph, "out", Join(elems=0.0), ["compute"])
        for _, data in graph.nodes(data=True):
            data.setdefault("latency_s", 0.0)
        return graph
