"""The numbers of a step's stages without their graphs: the passes record their formulas once for each structure.

What shapes the graphs (model, device, prices, targets, method, recipe, recomputation, degrees but dp) is a structure;
sizes of a micro-batch, ranks and the part of the weights that a device updates are variables. As for inference
(`graphsim.compile.formulas`), a structure whose passes need actual numbers runs through them every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from graphsim.compile.prices import price_formulas
from graphsim.compile.structure import shape_of
from graphsim.compile.symbols import SHAPING
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import names_of, numeric_fields, with_fields
from graphsim.training.numbers import StageNumbers, numbers_of_all
from graphsim.training.presence import SHARE, SIZES
from graphsim.training.prices import prices_of
from graphsim.training.setup import TrainingSetup
from graphsim.training.sharing import rule_of
from graphsim.training.step import stages_of
from graphsim.units import Num

T = TypeVar("T")

VARIED = ("rank", "rank_pattern", "group_size", "invocation_tokens")
"""Numbers of an adapter that its training depends on; there is a single adapter, and every token has it."""

PLAIN = {"dp": 1, "zero": 0, "shard_group": 0, "micro_batches": 0, "schedule": "1f1b", "virtual_stages": 1}
"""Degrees that no stage's own graph depends on."""


class StageFormulas:
    """The formulas of one structure's stages, and the program that evaluates them."""

    def __init__(self, setup: TrainingSetup) -> None:
        tape = Tape()
        symbolic = with_symbols(setup, tape)
        share: Any = tape.variable(SHARE)
        self._stages = numbers_of_all(stages_of(symbolic), share)
        self._noted = Guards(tape.guards.values())
        self._program = Program([leaf for stage in self._stages for leaf in leaves(stage)])

    def __call__(self, setup: TrainingSetup, share: Num) -> list[StageNumbers]:
        """The numbers of each stage. Raises the passes' errors for the setup's numbers."""
        given = {**values_of(setup), SHARE: share}
        self._noted.require(given)
        values = iter(self._program(given))
        return [filled(stage, values) for stage in self._stages]


def stage_numbers(setup: TrainingSetup, share: Num) -> list[StageNumbers] | None:
    """The numbers of each stage; None where the passes need actual numbers."""
    if not recordable(setup):
        return None
    formulas = _structures.get(structure_of(setup), lambda: _record(setup))
    return None if formulas is None else formulas(setup, share)


_structures: Memo[StageFormulas | None] = Memo(most=128)


def _record(setup: TrainingSetup) -> StageFormulas | None:
    try:
        return StageFormulas(setup)
    except NotRecordable:
        return None


def recordable(setup: TrainingSetup) -> bool:
    """Whether the numbers that determine a graph's structure are single values."""
    deployment = setup.deployment
    shaping: list[Any] = [getattr(deployment.parallelism, name) for name in ("tp", "ep", "sp", "cp")]
    shaping += [getattr(deployment.adapter, name) for name in SHAPING] if deployment.adapter else []
    shaping += [getattr(deployment.device, name) for name in names_of(Hardware)]
    return not any(isinstance(value, np.ndarray) for value in shaping)


def structure_of(setup: TrainingSetup) -> list[Any]:
    """Everything that determines the structure of a setup's graphs and prices."""
    parallelism = with_fields(setup.deployment.parallelism, PLAIN)
    deployment = with_fields(setup.deployment, {"parallelism": parallelism})
    recipe = setup.recipe
    own = [
        one_of_its_kind(setup.method),
        one_of_its_kind(recipe),
        tuple(f"{name} {value}" for held in (recipe.wrapper_s, recipe.attention_speed) for name, value in held.items()),
        one_of_its_kind(setup.optimizer),
        setup.recompute,
        setup.recompute_every,
        rule_of(setup.sharding).weights,
        setup.squares is None,
    ]
    return [*own, *shape_of(deployment)]


@lru_cache(maxsize=512)
def one_of_its_kind(thing: T) -> T:
    """The same object for equal ones: a Memo compares its parts by identity."""
    return thing


def values_of(setup: TrainingSetup) -> dict[str, Any]:
    """The values of a setup's variables, by name."""
    sizes = {name: getattr(setup, name) for name in SIZES if getattr(setup, name) is not None}
    return sizes | {name: value for name, value, _ in _of_adapter(setup)}


def with_symbols(setup: TrainingSetup, tape: Tape) -> TrainingSetup:
    """The setup with symbols for its variables, whose prices are recorded."""
    deployment, changes = setup.deployment, dict[str, Any]()
    for name, _, (field, key) in _of_adapter(setup):
        if key:
            changes.setdefault(field, {})[key] = tape.variable(name)
        else:
            changes[field] = tape.variable(name)
    lora = deployment.lora if deployment.adapter is None else with_fields(deployment.adapter, changes)
    price = prices_of(setup)
    points = [{name: float(np.ravel(value)[0]) for name, value in values_of(setup).items()} | {SHARE: 1.0}]
    recorded = price.by(price_formulas(price.base, tape, points), price_formulas(roofline, tape, points))
    sizes = {name: tape.variable(name) for name in SIZES if getattr(setup, name) is not None}
    parallelism = with_fields(deployment.parallelism, PLAIN)
    described = with_fields(deployment, {"lora": lora, "cost": recorded, "parallelism": parallelism})
    return with_fields(setup, {"deployment": described, **sizes})


def _of_adapter(setup: TrainingSetup) -> list[tuple[str, Any, tuple[str, str]]]:
    """The numbers of the adapter: variable, value, and location (field, key of a mapping)."""
    lora = setup.deployment.adapter
    found: list[tuple[str, Any, tuple[str, str]]] = []
    for name, value in (numeric_fields(lora) if lora else {}).items():
        if name not in VARIED:
            continue
        if isinstance(value, Mapping):
            found += [(f"{name}.{key}", entry, (name, key)) for key, entry in value.items()]
        else:
            found.append((name, value, (name, "")))
    return found


def leaves(thing: Any) -> Iterator[Any]:
    """The numbers in a description, including formulas, in a fixed order; integers, names and flags do not count."""
    if isinstance(thing, Expr | float | np.generic):
        yield thing
    elif is_dataclass(thing):
        for field in fields(thing):
            yield from leaves(getattr(thing, field.name))
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from leaves(value)
    elif isinstance(thing, Sequence) and not isinstance(thing, str):
        for value in thing:
            yield from leaves(value)


def filled(thing: Any, values: Iterator[Any]) -> Any:
    """The description with values in place of its numbers, in the order of `leaves`."""
    if isinstance(thing, Expr | float | np.generic):
        return next(values)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{field.name: filled(getattr(thing, field.name), values) for field in fields(thing)})
    if isinstance(thing, Mapping):
        return {name: filled(value, values) for name, value in thing.items()}
    if isinstance(thing, tuple):
        return tuple([filled(value, values) for value in thing])
    return thing
