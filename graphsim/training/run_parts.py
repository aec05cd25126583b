"""The parts of a training run's time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphsim.cost.power import Power
from graphsim.training.course import Course
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import estimate_of
from graphsim.training.merges import Merge, merge_of, state_width, trained_width
from graphsim.training.methods import load_method
from graphsim.units import Num

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanPart:
    """One kind of work in a run: its count, and the seconds of each; idle: whether devices wait in the
    meantime.
    """

    name: str
    count: Num
    each_s: Num
    idle: bool = False

    @property
    def total_s(self) -> Num:
        """Seconds of all repetitions."""
        return self.count * self.each_s


def parts_of(estimate: TrainEstimate, course: Course, steps: Num, merge: Merge | None) -> list[PlanPart]:
    """All parts of a run of this many steps.

    merge: one of ReLoRA's, where the course has any
    """
    size = checkpoint_bytes(estimate)
    parts = [*_training(estimate, course, steps), *_interruptions(estimate, course, steps, size, merge)]
    devices = estimate.setup.deployment.parallelism.devices
    return [*parts, *_failures(course, parts, steps, devices, size)]


def checkpoint_bytes(estimate: TrainEstimate) -> Num:
    """Bytes needed to resume: trained weights (all weights of a model whose base is trained), master copies, states.

    A frozen base is not written: PEFT's and the Trainer's checkpoints hold the adapter and the optimizer alone.
    """
    setup, trained = estimate.setup, estimate.trainable_parameters
    width = trained_width(setup)
    weights = np.maximum(trained, setup.deployment.model.num_parameters if setup.method.base else 0.0) * width
    master = 4.0 * trained if setup.recipe.master_weights else 0.0
    return weights + master + trained * state_width(setup)


def _training(estimate: TrainEstimate, course: Course, steps: Num) -> list[PlanPart]:
    warm = np.minimum(course.warm_start_steps, steps)
    parts = [PlanPart(name="training", count=steps - warm, each_s=estimate.step_s)]
    if np.any(np.greater(warm, 0)):
        parts.insert(0, PlanPart(name="warm start in full", count=warm, each_s=_full(estimate).step_s))
    return parts


def _full(estimate: TrainEstimate) -> TrainEstimate:
    """The same step with every weight trained and no adapter, with which ReLoRA begins."""
    setup = estimate.setup
    bare = replace(setup.deployment, lora=None)
    return estimate_of(replace(setup, deployment=bare, method=load_method("full")))


def merge_in(estimate: TrainEstimate, course: Course) -> Merge | None:
    """One merge of a course. Raises InfeasibleError if the base cannot be written."""
    if not np.any(np.greater(course.relora_every, 0)):
        return None
    return merge_of(estimate.setup, estimate.trainable_parameters, course.pruned)


def _interruptions(
    estimate: TrainEstimate, course: Course, steps: Num, size: Num, merge: Merge | None
) -> list[PlanPart]:
    """Evaluations, checkpoints and merges between steps."""
    parts = []
    if np.any(np.greater(course.evaluate_every, 0)):
        tokens_per_step = estimate.tokens_per_s * estimate.step_s
        each_s = _forward_s(estimate) * course.evaluation_tokens / tokens_per_step
        parts.append(PlanPart(name="evaluations", count=times_in(steps, course.evaluate_every), each_s=each_s))
    written = np.maximum(
        np.ceil(steps / np.where(np.greater(course.checkpoint_every, 0), course.checkpoint_every, np.inf)), 1.0
    )[()]
    parts.append(PlanPart(name="checkpoints", count=written, each_s=size / course.disk_bytes_per_s, idle=True))
    if merge is not None:
        cycles = times_in(steps - np.minimum(course.warm_start_steps, steps), course.relora_every)
        parts.append(PlanPart(name="merges", count=cycles, each_s=merge.merge_s))
        parts.append(PlanPart(name="new cycles", count=cycles, each_s=merge.restart_s))
    return parts


def times_in(steps: Num, every: Num) -> Num:
    """How often an event that recurs after `every` steps happens; never for 0."""
    return np.floor(steps / np.where(np.greater(every, 0), every, np.inf))[()]


def _forward_s(estimate: TrainEstimate) -> Num:
    """Seconds of a step's forward passes, with their share of exposed collectives and of the pipeline's bubble."""
    parts = estimate.parts_s
    forward = parts.get("forward", 0.0)
    busy = forward + parts.get("backward", 0.0) + parts.get("recompute", 0.0)
    waits = parts.get("exposed", 0.0) + parts.get("bubble", 0.0)
    return forward + waits * forward / np.maximum(busy, 1e-30)


def _failures(course: Course, parts: list[PlanPart], steps: Num, devices: Num, size: Num) -> list[PlanPart]:
    """The cost of failures: half of the work since the last checkpoint, a restart, and reading the checkpoint."""
    if course.failure_device_hours is None:
        return []
    run_s: Num = sum((part.total_s for part in parts), start=0.0)
    count = run_s / HOUR_S * devices / course.failure_device_hours
    between = np.where(np.greater(course.checkpoint_every, 0), np.minimum(course.checkpoint_every, steps), steps)
    lost_s = 0.5 * run_s * between / np.maximum(steps, 1.0)
    again = PlanPart(name="steps lost to failures", count=count, each_s=lost_s)
    return [
        again,
        PlanPart(name="restarts", count=count, each_s=course.restart_s + size / course.disk_bytes_per_s, idle=True),
    ]


def mean_watts(parts: list[PlanPart], watts: Num, power: Power | None) -> Num:
    """Mean power over the whole run; waiting devices draw idle power."""
    if power is None:
        return watts
    total: Num = sum((part.total_s for part in parts), start=0.0)
    waiting: Num = sum((part.total_s for part in parts if part.idle), start=0.0)
    return (watts * (total - waiting) + power.idle_w * waiting) / np.maximum(total, 1e-30)
