"""The numbers of one pipeline stage from which its step's time and memory are computed.

They come from the passes, or from formulas recorded of them (`graphsim.training.formulas`); they are then combined by
arithmetic on floats or arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphsim.graph.schedule import makespan_s
from graphsim.graph.walking import walk
from graphsim.ops import Direction, LossBackward
from graphsim.training.flops import by_direction, counted
from graphsim.training.held import HeldBytes, HeldUnit
from graphsim.training.moments import Turn, logits_of, turns_of
from graphsim.training.step import Stage, phase_of
from graphsim.training.stored import trained_parameters
from graphsim.training.times import MicroBatch, micro_batch_s
from graphsim.training.update import trained_groups
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageNumbers:
    """The numbers of a pipeline stage from which a step's time and memory are computed.

    turns: memory of each section
    held: what each section stores, with its seconds, before data parallelism
    times: times of a micro-batch
    update_s: seconds of the optimizer's step on the device's share of the weights
    logits: logits of a micro-batch
    learned: logits with a gradient
    adapter_bytes: bytes of the adapters' weights
    updated: number of trained weights on the device
    largest: number of weights of the largest trained tensor
    trainable: number of trained weights of the stage before it is sharded
    flops: flops of a micro-batch by direction
    counted_flops: flops by convention (`graphsim.training.flops`)
    """

    turns: tuple[Turn, ...]
    held: HeldBytes
    times: MicroBatch
    update_s: Num
    logits: Num
    learned: Num
    adapter_bytes: Num
    updated: Num
    largest: Num
    trainable: Num
    flops: Mapping[str, Num]
    counted_flops: Mapping[str, Num]


def numbers_of(stage: Stage, share: Num) -> StageNumbers:
    """The numbers of a stage from the passes.

    share: part of the trained weights that the device updates
    """
    times, spans = micro_batch_s(stage.micro_batch)
    units = tuple(_timed(unit, spans) for unit in stage.held.units)
    return StageNumbers(
        turns=tuple(turns_of(stage.sharded, stage.held, stage.setup)),
        held=HeldBytes(units=units),
        times=times,
        update_s=makespan_s(stage.update(share)),
        logits=logits_of(stage.sharded),
        learned=logits_of(stage.sharded, LossBackward),
        adapter_bytes=adapter_bytes(stage),
        updated=trained_parameters(stage.sharded),
        largest=largest_tensor(stage),
        trainable=trained_parameters(stage.logical),
        flops=by_direction(stage.sharded),
        counted_flops=counted(stage.sharded, phase_of(stage.setup).tokens),
    )


def numbers_of_all(stages: Sequence[Stage], share: Num) -> list[StageNumbers]:
    """The same of each stage, computed once for identical objects."""
    distinct = {id(stage): stage for stage in stages}
    found = {key: numbers_of(stage, share) for key, stage in distinct.items()}
    return [found[id(stage)] for stage in stages]


def _timed(unit: HeldUnit, spans: Mapping[str, Num]) -> HeldUnit:
    """A unit with the seconds of one of its turns."""
    return HeldUnit(
        name=unit.name, times=unit.times, shared=unit.shared, experts=unit.experts,
        forward_s=spans.get(unit.name, 0.0), backward_s=spans.get(f"{unit.name}.backward", 0.0),
    )  # fmt: skip


def largest_tensor(stage: Stage) -> Num:
    """Elements of the largest trained tensor on a device."""
    found: Num = 0.0
    for _, tensors in trained_groups(stage.sharded, stage.setup):
        for weights, times in tensors:
            found = np.maximum(found, weights.n * weights.k * np.minimum(times, 1.0))
    return found


def adapter_bytes(stage: Stage) -> Num:
    """Weights of adapters on a device, before data parallelism."""
    total: Num = 0.0
    for _, op, times in walk(stage.sharded):
        if op.adapter and op.direction is Direction.FORWARD:
            total = total + times * op.weight_storage_bytes
    return total
