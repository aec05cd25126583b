"""Sweeps over training of deployments: each says model, hardware, adapter and degrees, the rest are choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.scenarios import scenarios_in
from graphsim.errors import ConfigError
from graphsim.sweeps.training_grid import STRUCTURE, TrainingGrid, listed, training_grid
from graphsim.units import short

DEGREES = ("tp", "pp", "ep", "sp", "cp", "zero", "schedule", "virtual_stages")
SAID = ("lora", "precision", "cost", "rank", "variant", "targets", "dp", *DEGREES)
"""Choices that a deployment makes itself."""


def grids_of(models: Any, hardware: Any, choices: Mapping[str, Any]) -> list[TrainingGrid]:
    """The grids that a user asks for: one of choices, or one for each deployment, in their order.

    Raises ConfigError as `training_grid`, and for choices that deployments make already.
    """
    entries = list(models) if isinstance(models, list | tuple) else [models]
    if not any(isinstance(entry, Deployment) for entry in entries):
        if hardware is None:
            raise ConfigError("sweep_training: hardware = None is not allowed; give at least one")
        return [training_grid(models, hardware, choices)]
    said = ["hardware"] * (hardware is not None) + [name for name in choices if name in SAID]
    if said:
        allowed = ", ".join(name for name in (*list(STRUCTURE)[2:], "batch", "seq_len") if name not in SAID)
        raise ConfigError(
            f"sweep_training: {', '.join(said)} given together with deployments, which say "
            f"{'it' if len(said) == 1 else 'them'} already; allowed: {allowed} and the like"
        )
    return [_grid_of(entry, choices) for entry in entries]


def _grid_of(deployment: Any, choices: Mapping[str, Any]) -> TrainingGrid:
    if not isinstance(deployment, Deployment):
        raise ConfigError(
            f"sweep_training: {short(deployment)} is given together with deployments; give it as a Deployment too"
        )
    if scenarios_in(deployment) is not None:
        raise ConfigError("sweep_training: a deployment holds arrays of scenarios; give one deployment for each")
    degrees, lora = deployment.parallelism, deployment.adapter
    own: dict[str, Any] = {name: getattr(degrees, name) for name in (*DEGREES, "dp")}
    own |= {"precision": deployment.precision, "cost": deployment.cost, "lora": lora}
    if lora is not None:
        own["rank"] = listed("rank", lora.rank)
    grid = training_grid(deployment.model, deployment.device, {**choices, **own})
    return replace(grid, deployment=deployment, asked=tuple(choices))
