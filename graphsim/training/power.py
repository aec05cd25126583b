"""Power of a device during training, from the activity of its memory and matrix units."""

from __future__ import annotations

import numpy as np

from graphsim.cost.power import Power, power_of
from graphsim.deployment.energy import activity_of
from graphsim.errors import HardwareError
from graphsim.graph import total_work
from graphsim.training.estimate import TrainEstimate
from graphsim.units import Num

UNKNOWN = float("nan")


def watts_of(estimate: TrainEstimate) -> tuple[Num, Power | None]:
    """Mean power of one device over a step, and its source; NaN and None if its file states no power."""
    device = estimate.setup.deployment.device
    power = power_of(device)
    if power is None:
        return UNKNOWN, None
    graph = estimate.build()
    try:
        activity = activity_of(graph, device, estimate.setup.deployment.parallelism.pp)
    except HardwareError:  # no peak is stated for a format that is computed
        return UNKNOWN, None
    held = np.maximum(total_work(graph).flops / estimate.setup.deployment.parallelism.pp, 1.0)
    flops: Num = sum(estimate.flops.values(), start=0.0)
    step = activity * (flops / held)  # a graph may hold one micro-batch of several
    return power.watts(step.memory_s / estimate.step_s, step.compute_s / estimate.step_s), power
