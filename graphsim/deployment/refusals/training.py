"""Degrees of training only, which inference does not accept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphsim.deployment.parallelism import ONE_DEVICE
from graphsim.deployment.refusals.broken import Broken

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment


def of_training(deployment: Deployment) -> Iterator[Broken]:
    """Exchanges of context-parallel ranks in training, ZeRO and the schedules of a backward pass."""
    for name, value in deployment.parallelism.training_only.items():
        usual = getattr(ONE_DEVICE, name)
        yield Broken(
            rule="training", where=np.not_equal(value, usual), asked=f"parallelism.{name}", value=value,
            words="it is for training, not for inference", allowed=str(usual), always=True,
        )  # fmt: skip
