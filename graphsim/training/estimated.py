"""From a setup to its estimate: the step's graphs, their times, flops and memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from graphsim.ops.formats import RATES
from graphsim.training.estimate import TrainEstimate, TrainMemory
from graphsim.training.flops import CONVENTIONS
from graphsim.training.formulas import stage_numbers
from graphsim.training.memory import memory_of
from graphsim.training.numbers import StageNumbers, numbers_of_all
from graphsim.training.offload import update_share
from graphsim.training.setup import TrainingSetup
from graphsim.training.step import Stage, stages_of, tokens_of
from graphsim.training.step_times import StepTimes, step_times
from graphsim.units import Num


def estimate_of(setup: TrainingSetup) -> TrainEstimate:
    """Time and memory of a step. Raises ConfigError, HardwareError or GraphError for anything that cannot be run or
    priced.
    """
    step = ComputedStep(setup)
    tokens, device = tokens_of(setup), setup.deployment.device
    devices = setup.deployment.parallelism.devices
    step_s, parts_s = step.times.step_s, step.times.parts_s
    return TrainEstimate(
        setup=setup,
        step_s=step_s,
        parts_s=parts_s,
        tokens_per_s=tokens / step_s,
        tokens_per_s_per_gpu=tokens / step_s / devices,
        mfu=step.counted_flops["graph"] / (step_s * device.peak(step.peak_format)),
        hfu=sum(step.flops.values(), start=0.0) / (step_s * device.peak(step.peak_format)),
        peak_format=step.peak_format,
        flops=step.flops,
        counted_flops=step.counted_flops,
        trainable_parameters=step.trainable_parameters,
        cost_model=setup.deployment.cost_model,
        build=step.graph,
        measure_memory=step.memory,
        slots=step.times.slots,
        notes=tuple(notes_of(setup)),
        caution=setup.deployment.caution,
    )


@dataclass(frozen=True, eq=False)
class ComputedStep:
    """One setup's step, computed by the passes."""

    setup: TrainingSetup

    @cached_property
    def stages(self) -> list[Stage]:
        """The graphs of the pipeline's stages."""
        return stages_of(self.setup)

    @cached_property
    def numbers(self) -> list[StageNumbers]:
        """The numbers of the stages, by formulas if these could be recorded."""
        found = stage_numbers(self.setup, self.share)
        return numbers_of_all(self.stages, self.share) if found is None else found

    @property
    def share(self) -> Num:
        """Part of the trained weights that a device updates."""
        return update_share(self.setup)

    @cached_property
    def times(self) -> StepTimes:
        """Times of the step."""
        return step_times(self.numbers, self.setup)

    @property
    def flops(self) -> dict[str, Num]:
        """Matrix flops of one device and step, by direction; the mean of a pipeline's stages."""
        total: dict[str, Num] = {}
        for stage in self.numbers:
            for name, flops in stage.flops.items():
                total[name] = total.get(name, 0.0) + flops * self.setup.accumulate / len(self.numbers)
        return total

    @property
    def counted_flops(self) -> dict[str, Num]:
        """Flops that count for utilisation, of one device and step, by convention."""
        share = self.setup.accumulate / len(self.numbers)
        return {
            name: sum((stage.counted_flops[name] for stage in self.numbers), start=0.0) * share for name in CONVENTIONS
        }

    @property
    def trainable_parameters(self) -> Num:
        """Weights that a step changes, of the whole model."""
        return sum((stage.trainable for stage in self.numbers), start=0.0)

    @property
    def peak_format(self) -> str:
        """The format whose dense peak utilisation is measured against."""
        wanted, known = self.setup.deployment.precision.compute, self.setup.deployment.device.flops_per_s
        return next((name for name in RATES.get(wanted, (wanted,)) if name in known), wanted)

    def graph(self) -> nx.DiGraph:
        """Forward, backward and update of one micro-batch, of the stage that takes longest."""
        totals = [float(np.max(stage.times.total_s)) for stage in self.numbers]
        return self.stages[totals.index(max(totals))].whole(self.share)

    def memory(self) -> TrainMemory:
        """Memory of the stage that needs most."""
        return memory_of(self.numbers, self.setup, self.times.in_flight, lambda: self.stages)


def notes_of(setup: TrainingSetup) -> list[str]:
    """The notes of the estimate."""
    deployment, adapter = setup.deployment, setup.deployment.adapter
    notes = [*deployment.model.notes, *(adapter.notes if adapter else ())]
    if setup.optimizer.decomposes:
        notes.append(
            f"singular value decompositions of {setup.optimizer.name} are counted at the peak of the device's ordinary "
            "units, a lower bound of what they take"
        )
    if setup.optimizer.pageable and "optimizer" not in setup.offload:
        notes.append(
            f"states of {setup.optimizer.name} count as memory of the device; where they do not fit, they may be paged "
            'out to the host, which takes time that is not simulated (offload="optimizer" counts them there)'
        )
    return [*notes, deployment.caution] if deployment.caution else notes
