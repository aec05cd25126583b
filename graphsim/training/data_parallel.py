"""Collectives of data parallelism: what each unit gathers and reduces in a step, over which devices, in how many parts.

Only gradients of trained weights are reduced; a sharded frozen base is still gathered. Weights are sent in the format
of the GEMM, frozen ones as stored (packed 4-bit weights: about half a byte each), gradients in the format in which they
are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphsim.ops import AllGather, AllReduce, Collective, ReduceScatter
from graphsim.ops.base import BF16
from graphsim.training.held import Held, HeldBytes, HeldUnit
from graphsim.training.sharing import Groups, Rule, groups_of, rule_of, sums_each
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.deployment.parallelism import Parallelism
    from graphsim.training.setup import TrainingSetup

Price = Callable[[Collective], Num]
"""Seconds of a collective."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sent:
    """A collective and its number: less than one if a bucket holds more than a unit."""

    op: Collective
    times: Num = 1.0

    def seconds(self, price: Price) -> Num:
        """Seconds of all collectives."""
        return price(self.op) * self.times

    @property
    def message_bytes(self) -> Num:
        """Bytes that each device sends."""
        return self.op.work().message_bytes * self.times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitSteps:
    """Collectives of one unit in one micro-batch, in the order in which they are issued.

    forward: before its forward pass
    backward: before its backward pass
    reduce: after its backward pass, in the last
        micro-batch or in all (`DataParallelSteps.every`)
    """

    unit: HeldUnit
    forward: tuple[Sent, ...] = ()
    backward: tuple[Sent, ...] = ()
    reduce: tuple[Sent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataParallelSteps:
    """Collectives of data parallelism in a step.

    units: in the order of the forward pass
    update: collectives after the optimizer, or during the next forward pass if
        `hidden`
    every: whether gradients are reduced in each micro-batch
    in_flight: number of units whose weights are whole at once
    """

    units: tuple[UnitSteps, ...]
    update: tuple[Sent, ...]
    every: bool
    hidden: bool
    in_flight: int
    rule: Rule = field(repr=False)

    def sent_bytes(self, micro_batches: Num = 1.0) -> Num:
        """Bytes that each device sends in a step of this many micro-batches."""
        total = sum((sent.message_bytes for sent in self.update), start=0.0)
        for steps in self.units:
            for sent in (*steps.forward, *steps.backward):
                total = total + sent.message_bytes * steps.unit.times * micro_batches
            for sent in steps.reduce:
                total = total + sent.message_bytes * steps.unit.times * (micro_batches if self.every else 1.0)
        return total


def data_parallel_steps(setup: TrainingSetup, held: HeldBytes) -> DataParallelSteps:
    """The collectives of a training setup; see `steps_of`."""
    recipe = setup.recipe
    return steps_of(
        held, setup.sharding, setup.deployment.parallelism, recipe.units_in_flight, defers=recipe.defers_reduction
    )


def steps_of(
    held: HeldBytes, sharding: str, parallelism: Parallelism, units_in_flight: float = 2.0, *, defers: bool = False
) -> DataParallelSteps:
    """The collectives of a step.

    held: units of a stage before data parallelism
    sharding: a name of `graphsim.training.sharing.RULES`
    units_in_flight: weights of this many units are gathered at once (1 = no prefetching)
    defers: whether FSDP reduces gradients in the last micro-batch only (`defers_reduction` of a recipe)
    Raises ConfigError for an unknown kind of sharding.
    """
    rule = rule_of(sharding)
    groups = groups_of(parallelism), groups_of(parallelism, experts=True)
    units = rooted(held) if rule.rooted else held.units
    totals = held.shared, held.experts
    found = []
    for unit in units:
        parts = list(zip((unit.shared, unit.experts), groups, totals, strict=True))
        apart = unit.times == 1
        gathers = (
            tuple(sent for part, group, _ in parts for sent in _gathers(part, group, rule)) if rule.weights else ()
        )
        reduces = tuple(sent for part, group, total in parts for sent in _reduces(part, group, rule, total))
        found.append(
            UnitSteps(
                unit=unit, forward=gathers, backward=gathers if rule.regathers and not apart else (), reduce=reduces
            )
        )
    return DataParallelSteps(
        units=tuple(found),
        update=tuple(_updates(totals, groups, rule)) if rule.gathers_updates else (),
        every=sums_each(rule, defers),
        hidden=rule.hides_updates,
        in_flight=max(int(units_in_flight), 1),
        rule=rule,
    )


def rooted(held: HeldBytes) -> tuple[HeldUnit, ...]:
    """The units of FSDP1: everything outside the layers is one unit, gathered before all others and reduced last.

    Times stay with the units that they are of.
    """
    apart = [unit for unit in held.units if unit.times == 1]
    if len(apart) < 2 or len(apart) == len(held.units):
        return held.units
    shared, experts = (sum((getattr(u, name) for u in apart), start=Held()) for name in ("shared", "experts"))
    first = apart[0]
    return tuple(
        unit if unit.times > 1 else HeldUnit(
            name=unit.name, forward_s=unit.forward_s, backward_s=unit.backward_s,
            shared=shared if unit is first else Held(), experts=experts if unit is first else Held(),
        )
        for unit in held.units
    )  # fmt: skip


def _elems(size: Num) -> Num:
    """Elements of 16 bits."""
    return size / BF16.bytes


def _leaves(part: Held, rule: Rule) -> Num:
    """1 if trained weights are units separate from the frozen ones, else 0."""
    mixed = np.minimum(part.frozen_bytes, 1.0) * np.minimum(part.gathered_bytes, 1.0)
    return mixed if rule.leaves else 0.0


def _gathers(part: Held, group: Groups, rule: Rule) -> Iterator[Sent]:
    """Gathers of a unit's weights."""
    alone, tensors = _leaves(part, rule), np.maximum(part.tensors, 1.0)
    whole = part.frozen_bytes + part.gathered_bytes * (1.0 - alone)
    yield Sent(op=AllGather(role="weights.all_gather", elems=_elems(whole), group=group.ways, stride=group.stride))
    if rule.leaves:
        each = _elems(part.gathered_bytes * alone / tensors)
        op = AllGather(role="trained_weights.all_gather", elems=each, group=group.ways, stride=group.stride)
        yield Sent(op=op, times=tensors)


def _reduces(part: Held, group: Groups, rule: Rule, total: Held) -> Iterator[Sent]:
    """Reductions of a unit's gradients: reduce-scatter if gradients or states are sharded, and sums over replicas of
    the shards.
    """
    times: Num = 1.0
    if rule.bucket_bytes:
        times = part.reduced_bytes / np.maximum(np.minimum(rule.bucket_bytes, total.reduced_bytes), 1.0)
    elif rule.leaves:
        times = np.where(np.greater(_leaves(part, rule), 0.0), np.maximum(part.tensors, 1.0), 1.0)[()]
    each = _elems(part.reduced_bytes / np.maximum(times, 1e-30))
    if not (rule.states or rule.gradients):
        op: Collective = AllReduce(role="gradients.all_reduce", elems=each, group=group.all, stride=group.stride)
        yield Sent(op=op, times=times)
        return
    scatter = ReduceScatter(role="gradients.reduce_scatter", elems=each, group=group.ways, stride=group.stride)
    yield Sent(op=scatter, times=times)
    across = AllReduce(
        role="gradients.all_reduce", elems=each / group.ways, group=group.replicas, stride=group.stride * group.ways
    )
    yield Sent(op=across, times=times)


def _updates(totals: tuple[Held, Held], groups: tuple[Groups, Groups], rule: Rule) -> Iterator[Sent]:
    """Gathers of trained weights after each device has updated its share."""
    for part, group in zip(totals, groups, strict=True):
        times = np.maximum(np.ceil(part.gathered_bytes / rule.bucket_bytes), 1.0)
        op = AllGather(
            role="updated_weights.all_gather", elems=_elems(part.gathered_bytes / times), group=group.ways,
            stride=group.stride,
        )  # fmt: skip
        yield Sent(op=op, times=times)
