"""Offloading to host memory: the time that a step waits for transfers, and the time of the update on the host.

Copies run on a separate stream, concurrently with compute (torchtune, `training/_activation_offloading.py`; DeepSpeed,
`runtime/zero/offload_config.py`); copies are exposed if they take longer than the compute of the same turn.
"""

from __future__ import annotations

import numpy as np

from graphsim.training.numbers import StageNumbers
from graphsim.training.setup import TrainingSetup
from graphsim.training.sharing import groups_of, rule_of
from graphsim.units import Num

HOST_UPDATE_BYTES_PER_S = 40e9
"""Rate at which the optimizer on the host reads and writes a device's share of host memory. An assumption: a socket
with eight channels of DDR5 moves about 300 GB/s, for four devices or more."""


def waited_s(stage: StageNumbers, setup: TrainingSetup) -> Num:
    """Seconds that one micro-batch waits for copies of activations and parameters, both ways."""
    link = setup.deployment.device.host_link.bytes_per_s
    total: Num = 0.0
    for turn, unit in zip(stage.turns, stage.held.units, strict=True):
        stored = unit.shared + unit.experts
        weights = (stored.frozen_bytes + stored.gathered_bytes) * float("parameters" in setup.offload)
        kept = turn.kept * float(turn.again and "activations" in setup.offload)
        for compute_s in (unit.forward_s, unit.backward_s):
            total = total + turn.times * np.maximum((weights + kept) / link - compute_s, 0.0)
    return total


def update_s(stage: StageNumbers, setup: TrainingSetup) -> Num:
    """Seconds of the update: on the host, if the states are there, between the copies of gradients and weights."""
    if "optimizer" not in setup.offload:
        return stage.update_s
    held = stage.held.shared + stage.held.experts
    link = setup.deployment.device.host_link.bytes_per_s
    moved = setup.optimizer.moved_fp32_bytes * stage.updated
    copied_s = (held.gradient_bytes + held.gathered_bytes) / link
    return update_share(setup) * (copied_s + moved / HOST_UPDATE_BYTES_PER_S)


def update_share(setup: TrainingSetup) -> Num:
    """Part of the trained weights that a device updates."""
    groups = groups_of(setup.deployment.parallelism)
    return 1.0 / groups.ways if rule_of(setup.sharding).states else 1.0
