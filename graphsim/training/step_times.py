"""Seconds of an optimizer step from its stages' numbers: micro-batches, collectives over replicas, the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.graph.schedule import latest
from graphsim.ops import Collective
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.substitute import names_of
from graphsim.training.collective_timeline import DataParallelTimes, times_of
from graphsim.training.data_parallel import Price, data_parallel_steps
from graphsim.training.numbers import StageNumbers
from graphsim.training.offload import update_s, waited_s
from graphsim.training.overlap import SLOWDOWN, Beside
from graphsim.training.part_times import BLOCKING, hand_over, part_times
from graphsim.training.pipelined import Pipelined, pipelined_s
from graphsim.training.prices import prices_of
from graphsim.training.schedules import Schedule, schedule_of
from graphsim.training.setup import TrainingSetup
from graphsim.training.sharing import groups_of, rule_of
from graphsim.units import Num

PARTS = ("forward", "recompute", "backward", "optimizer", "exposed", "bubble")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimes:
    """The times of a step.

    parts_s: seconds of each of PARTS, which add up to the step
    in_flight: micro-batches whose saved values each stage
        holds
    slots: when each slot of a pipeline runs; None without one, and where scenarios have different schedules
    """

    parts_s: dict[str, Num]
    in_flight: tuple[Num, ...]
    slots: Pipelined | None = None

    @property
    def step_s(self) -> Num:
        """All parts, one after another."""
        return sum(self.parts_s.values(), start=0.0)


def step_times(stages: Sequence[StageNumbers], setup: TrainingSetup) -> StepTimes:
    """The times of a step; of a pipeline by the schedule of each number of micro-batches that there is."""
    price = collective_price(setup)
    if len(stages) == 1:
        return _alone(stages[0], setup, price)
    counts = np.unique(np.asarray(setup.accumulate))
    each = [_pipelined(stages, setup, int(count), price) for count in counts]
    if len(each) == 1:
        return each[0]
    own = [np.equal(setup.accumulate, count) for count in counts]
    return StepTimes(
        parts_s={name: np.select(own, [times.parts_s[name] for times in each]) for name in PARTS},
        in_flight=tuple(np.select(own, held) for held in zip(*(times.in_flight for times in each), strict=True)),
    )


def _alone(stage: StageNumbers, setup: TrainingSetup, price: Price) -> StepTimes:
    """Times of a model without a pipeline."""
    times, count = stage.times, setup.accumulate
    exchange = exchange_of(stage, setup, count, price)
    slowed_s = (slowed(setup) - 1.0) * count * times.total_s
    exposed_s = count * (times.exposed_s + waited_s(stage, setup)) + exchange.exposed_s
    return StepTimes(
        parts_s={
            "forward": count * times.forward_s,
            "recompute": count * times.recompute_s,
            "backward": count * times.backward_s,
            "optimizer": update_s(stage, setup),
            "exposed": np.maximum(exposed_s + slowed_s, 0.0)[()],
            "bubble": 0.0 * times.forward_s,
        },
        in_flight=(1.0,),
    )


def exchange_of(stage: StageNumbers, setup: TrainingSetup, micro_batches: Num, price: Price) -> DataParallelTimes:
    """The data-parallel communication in a step of this many micro-batches, overlapped with the stage's compute."""
    beside = Beside(overlap=setup.recipe.overlap, contention=SLOWDOWN)
    return times_of(data_parallel_steps(setup, stage.held), price, micro_batches, beside)


def slowed(setup: TrainingSetup) -> Num:
    """Slowdown of compute while weights are gathered continuously, with several devices."""
    if not rule_of(setup.sharding).weights:
        return 1.0
    several = np.minimum(groups_of(setup.deployment.parallelism).ways - 1.0, 1.0)
    return 1.0 + (setup.recipe.contention - 1.0) * several


def collective_price(setup: TrainingSetup) -> Price:
    """Seconds of a collective on the setup's device; equal ones, of which a step has many, are computed once."""
    price, device = prices_of(setup), setup.deployment.device
    known: Memo[Num] = Memo(most=64)

    def seconds(op: Collective) -> Num:
        kind: Any = type(op)
        return known.get((kind, *(getattr(op, name) for name in names_of(kind))), lambda: price(op, device).latency_s)

    return seconds


def _pipelined(stages: Sequence[StageNumbers], setup: TrainingSetup, micro_batches: int, price: Price) -> StepTimes:
    degrees = setup.deployment.parallelism
    schedule = schedule_of(degrees.schedule, degrees.pp, micro_batches, degrees.virtual_stages)
    found = slots_s(schedule, stages, setup, price)
    exchanges = [exchange_of(stage, setup, setup.accumulate, price).exposed_s for stage in stages]
    count = setup.accumulate
    longest_s = latest(stage.times.total_s for stage in stages)
    waits_s = latest(waited_s(stage, setup) for stage in stages)
    exposed_s = latest(exchanges) + count * ((slowed(setup) - 1.0) * longest_s + waits_s)
    busiest = latest(found.busy_s)
    mean = {
        name: sum((getattr(stage.times, name) for stage in stages), start=0.0) / len(stages)
        for name in ("forward_s", "recompute_s", "backward_s", "exposed_s")
    }
    own = count * sum(mean.values(), start=0.0)
    return StepTimes(
        parts_s={
            "forward": count * mean["forward_s"],
            "recompute": count * mean["recompute_s"],
            "backward": count * mean["backward_s"],
            "optimizer": latest(update_s(stage, setup) for stage in stages),
            "exposed": count * mean["exposed_s"] + exposed_s,
            "bubble": found.bubble_s + busiest - own,
        },
        in_flight=found.in_flight,
        slots=found,
    )


def slots_s(schedule: Schedule, stages: Sequence[StageNumbers], setup: TrainingSetup, price: Price) -> Pipelined:
    """When every slot runs."""
    parts, send_s = part_times(schedule, stages), price(hand_over(stages, setup))
    return pipelined_s(
        schedule, parts.forward_s, parts.backward_s, parts.weight_s, send_s, overlapped=schedule.name not in BLOCKING
    )
