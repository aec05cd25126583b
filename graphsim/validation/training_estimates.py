"""The estimate of one case: the recipe with the row's changes, passed to `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from graphsim.errors import ConfigError
from graphsim.training.estimate import TrainMemory
from graphsim.training.setup import TrainingSetup
from graphsim.validation.training_cases import TrainingCase
from graphsim.validation.training_settings import LIKE


def estimate_case(case: TrainingCase) -> Any:
    """The estimate of a step's time and memory. Raises ConfigError as `graphsim.training.train` does."""
    from graphsim.training.estimated import estimate_of
    from graphsim.training.train import setup_of

    recipe = recipe_for(case)
    recomputed = case.recomputed.name or recipe.recompute
    setup = setup_of(
        case.model, case.hardware, batch=case.batch, seq_len=case.seq_len, method=case.method, lora=case.lora,
        parallelism=case.parallelism, precision=case.precision, recipe=recipe, accumulate=case.accumulate,
        recompute=recomputed, optimizer=case.optimizer, squares=case.squares, sharding=case.shared.name or None,
        offload=case.offload,
    )  # fmt: skip
    found = estimate_of(setup)
    return replace(found, measure_memory=lambda: _last_stage(setup)) if case.last_stage else found


def _last_stage(setup: TrainingSetup) -> TrainMemory:
    """Memory of the last stage, whose rank writes Megatron-LM's log."""
    from graphsim.training.estimated import ComputedStep
    from graphsim.training.memory import memory_of

    step = ComputedStep(setup)
    in_flight = step.times.in_flight
    return memory_of(step.numbers[-1:], setup, in_flight[-1:], lambda: step.stages[-1:])


def recipe_for(case: TrainingCase) -> Any:
    """The recipe with the row's changes."""
    from graphsim.training.recipe import list_recipes, load_recipe

    name = case.recipe if case.recipe in list_recipes() else LIKE.get(case.recipe, case.recipe)
    recipe = load_recipe(name)
    known = {field.name for field in fields(recipe)}
    changes = dict(case.changes)
    if case.recomputed.modules and "recompute_modules" in known:
        changes["recompute_modules"] = case.recomputed.modules
    for key, value in list(changes.items()):
        if key not in known:
            raise ConfigError(f"recipes have no {key}")
        if isinstance(value, Mapping) and is_dataclass(getattr(recipe, key)):
            changes[key] = replace(getattr(recipe, key), **value)
    return replace(recipe, **changes)
