"""Seconds of each part of the model in a pipeline: a stage's layers over its chunks, and embedding and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsim.ops import SendReceive
from graphsim.ops.base import BF16
from graphsim.training.held import HeldUnit
from graphsim.training.numbers import StageNumbers
from graphsim.training.schedules import Schedule
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num

STEM, HEAD = "stem", "head"
"""The parts before and after the layers."""

BLOCKING = ("gpipe", "1f1b")
"""Schedules whose stages wait for their sends: Megatron overlaps sends of interleaved pipelines alone
(megatron/training/arguments.py: overlap_p2p_comm needs virtual stages)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTimes:
    """Times of one micro-batch, for each part in the order of the forward pass; backward_s excludes weight_s."""

    forward_s: list[Num]
    backward_s: list[Num]
    weight_s: list[Num]


def part_times(schedule: Schedule, stages: Sequence[StageNumbers]) -> PartTimes:
    """Times of the schedule's parts.

    stages: contiguous ranges of layers, as many as the pipeline has
    """
    found = PartTimes(forward_s=[], backward_s=[], weight_s=[])
    each = schedule.parts / schedule.stages
    for part in range(schedule.parts):
        stage = stages[int(part / each)]
        times, ends = stage.times, _ends(stage.held.units)
        own = [unit for name, unit in ends.items() if part == (0 if name == STEM else schedule.parts - 1)]
        layers_f = times.until_loss_s - sum((unit.forward_s for unit in ends.values()), start=0.0)
        layers_b = times.behind_loss_s - sum((unit.backward_s for unit in ends.values()), start=0.0)
        forward_s = layers_f / each + sum((unit.forward_s for unit in own), start=0.0)
        backward_s = layers_b / each + sum((unit.backward_s for unit in own), start=0.0)
        weight_s = backward_s * times.weight_s / np.maximum(times.behind_loss_s, 1e-30) if schedule.splits else 0.0
        found.forward_s.append(forward_s)
        found.backward_s.append(backward_s - weight_s)
        found.weight_s.append(weight_s)
    return found


def _ends(units: Sequence[HeldUnit]) -> dict[str, HeldUnit]:
    """The units outside the layers, if there are layers."""
    return {unit.name: unit for unit in units if unit.name in (STEM, HEAD) and len(units) > 1}


def hand_over(stages: Sequence[StageNumbers], setup: TrainingSetup) -> SendReceive:
    """The send of a micro-batch's value to the next stage.

    Stages are the outermost dimension: all other ranks come between neighbours (Megatron-LM, core/parallel_state.py)
    """
    degrees = setup.deployment.parallelism
    entry = stages[-1].turns[0].entry
    return SendReceive(role="send", elems=entry / BF16.bytes, group=degrees.pp, stride=degrees.devices / degrees.pp)
