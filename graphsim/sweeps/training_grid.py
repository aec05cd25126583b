"""What a sweep over training asks for: choices that make a graph each, and numbers that share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.scenarios import count
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware, load_hardware
from graphsim.lora.config import LoraConfig
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.ops.precision import Precision
from graphsim.ranges import values_of
from graphsim.sweeps.grid import blocks_of
from graphsim.training.methods import load_method
from graphsim.training.optimizers import Optimizer, load_optimizer
from graphsim.training.recipe import RECOMPUTE, SHARDING, Recipe, load_recipe
from graphsim.training.setup import Method
from graphsim.units import entries_of, short

if TYPE_CHECKING:
    import pandas as pd

STRUCTURE: Mapping[str, Any] = {
    "model": None, "hardware": None, "method": "lora", "recipe": "peft", "precision": None, "cost": None,
    "recompute": None, "recompute_every": 1, "optimizer": None, "sharding": None, "offload": None, "lora": None,
    "variant": None, "targets": None, "schedule": "1f1b", "pp": 1, "virtual_stages": 1, "tp": 1, "sp": 1, "cp": 1,
    "ep": 1, "zero": 0,
}  # fmt: skip
"""Choices that change the graph, and their defaults."""

NUMBERS: Mapping[str, Any] = {
    "batch": 1, "seq_len": 2048, "accumulate": 1, "dp": 1, "rank": None, "global_batch": 0,
}  # fmt: skip
"""Choices that are numbers on one graph. rank: by default the adapter's own; global_batch: sequences of a step, which
then decides `accumulate`."""

COUNTS = ("pp", "virtual_stages", "tp", "sp", "cp", "ep")
UNUSED = (
    "precision", "cost", "schedule", "virtual_stages", "sp", "cp", "ep", "zero", "offload", "sharding", "lora",
    "variant", "targets", "recompute_every", "global_batch",
)  # fmt: skip
"""Columns that a table omits by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """One combination of the choices that make a graph, and the numbers of its scenarios.

    numbers: of an axis each, which broadcast against each other
    asked: names of the choices that the user made
    deployment: that says model, hardware, adapter and degrees; None where choices do
    """

    chosen: Mapping[str, Any]
    numbers: Mapping[str, NDArray[np.float64]]
    asked: tuple[str, ...] = ()
    deployment: Deployment | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of the numbers."""
        return np.broadcast_shapes(*[values.shape for values in self.numbers.values()])

    @property
    def rows(self) -> int:
        """Its scenarios."""
        return prod(self.shape)

    @property
    def flat(self) -> Structure:
        """The same with numbers side by side, an entry a scenario."""
        shape = self.shape
        return replace(self, numbers={n: np.broadcast_to(v, shape).ravel() for n, v in self.numbers.items()})

    def part(self, rows: slice) -> Structure:
        """Some of the scenarios of a flat one."""
        return replace(self, numbers={name: values[rows] for name, values in self.numbers.items()})

    @property
    def accumulate(self) -> NDArray[np.float64]:
        """Micro-batches of a step: as chosen, or the number that makes up the `global_batch`."""
        numbers = self.numbers
        whole = numbers["global_batch"] / (numbers["batch"] * numbers["dp"])
        return np.where(numbers["global_batch"] > 0, whole, numbers["accumulate"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingGrid:
    """The values of every choice; scenarios are their Cartesian product, the last choice varies fastest."""

    structure: Mapping[str, tuple[Any, ...]]
    numbers: Mapping[str, NDArray[np.float64]]
    asked: tuple[str, ...] = ()
    deployment: Deployment | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the numbers of one graph."""
        return tuple(len(values) for values in self.numbers.values())

    @property
    def rows(self) -> int:
        """Scenarios in all."""
        return prod(len(values) for values in self.structure.values()) * prod(self.shape)

    def blocks(self, most: int) -> Iterator[Structure]:
        """Each graph with its scenarios, in pieces of at most `most` rows, in the order of rows."""
        for values in product(*self.structure.values()):
            chosen = dict(zip(self.structure, values, strict=True))
            for place in blocks_of(self.shape, most):
                numbers = {}
                for i, (name, column) in enumerate(self.numbers.items()):
                    where = place[i]
                    kept = column[where] if isinstance(where, slice) else column[where : where + 1]
                    numbers[name] = kept.reshape([-1 if j == i else 1 for j in range(len(self.shape))])
                yield Structure(chosen=chosen, numbers=numbers, asked=self.asked, deployment=self.deployment)

    def table(self) -> pd.DataFrame:
        """One row per scenario, a column per choice; of those that say nothing, the ones that were asked for."""
        import pandas as pd

        shape = (*[len(values) for values in self.structure.values()], *self.shape)
        columns: dict[str, Any] = {}
        every: dict[str, Any] = {**self.structure, **self.numbers}
        for i, (name, values) in enumerate(every.items()):
            if name in UNUSED and name not in self.asked:
                continue
            index = np.arange(len(values)).reshape([-1 if j == i else 1 for j in range(len(shape))])
            row = np.broadcast_to(index, shape).ravel()
            if name in (*NUMBERS, *COUNTS, "zero", "recompute_every"):
                columns[name] = np.asarray(values)[row]
            else:
                codes, labels = pd.factorize(np.array([_label(name, value) for value in values], dtype=object))
                columns[name] = pd.Categorical.from_codes(codes[row], pd.Index(labels))
        if "global_batch" in self.asked:
            whole = [one.flat.accumulate for one in self.blocks(prod(self.shape))]
            columns["accumulate"] = np.concatenate(whole)
        return pd.DataFrame(columns)


def training_grid(models: Any, hardware: Any, choices: Mapping[str, Any]) -> TrainingGrid:
    """The grid that a user asks for. Raises ConfigError for a choice that is none, is empty, or cannot be."""
    known = {**STRUCTURE, **NUMBERS}
    for name in choices:
        if name not in known or name in ("model", "hardware"):
            raise ConfigError(f"sweep_training has no choice '{name}'; {choices_text(name, list(known)[2:])}")
    if "global_batch" in choices and "accumulate" in choices:
        raise ConfigError("accumulate given together with global_batch, which decides it; leave one out")
    structure = {name: tuple(listed(name, choices.get(name, default))) for name, default in STRUCTURE.items()}
    structure["model"] = tuple(load_model(ref) for ref in _several("model", models))
    structure["hardware"] = tuple(load_hardware(ref) for ref in _several("hardware", hardware))
    _check_names(structure)
    for name in COUNTS:
        count(name, structure[name])
    adapters = tuple(lora or model.lora_config for model in structure["model"] for lora in structure["lora"])
    usual = {**NUMBERS, "rank": _own_rank(adapters)}
    numbers = {name: _numbers(name, choices.get(name, default)) for name, default in usual.items()}
    LoraConfig(rank=numbers["rank"])
    return TrainingGrid(structure=structure, numbers=numbers, asked=tuple(choices))


def _own_rank(adapters: tuple[Any, ...]) -> Any:
    """The rank that the table shows where none is chosen: that of the one adapter given, or of a model."""
    ranks = {float(np.max(lora.rank)) for lora in adapters if isinstance(lora, LoraConfig)}
    return ranks.pop() if len(ranks) == 1 else 16


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    values = listed(name, value)
    least = 0 if name in ("global_batch", "rank") else 1
    return np.atleast_1d(np.asarray(count(name, values if len(values) > 1 else values[0], least=least), dtype=float))


def listed(name: str, value: Any) -> list[Any]:
    """The values of a choice; a list of targets, and of what is offloaded, is one value, several are lists of lists."""
    if name in ("targets", "offload"):
        nested = isinstance(value, list | tuple) and bool(value) and all(isinstance(v, list | tuple) for v in value)
        return [tuple(entry) for entry in value] if nested else [tuple(value) if isinstance(value, list) else value]
    if isinstance(value, str) and name in (*NUMBERS, *COUNTS, "zero", "recompute_every"):
        try:
            return [*values_of(value)]
        except ConfigError as error:
            raise ConfigError(f"sweep_training: {name}: {error}") from None
    values = entries_of(value)
    if not values:
        raise ConfigError(f"sweep_training: {name} is empty; give at least one value")
    return values


def _several(name: str, value: Any) -> list[Any]:
    if any(isinstance(entry, Deployment) for entry in (value if isinstance(value, list | tuple) else [value])):
        raise ConfigError(
            "models = a Deployment is not allowed here; give models and hardware, whose choices are not fixed"
        )
    if value is None:
        raise ConfigError(f"sweep_training: {name} = None is not allowed; give at least one")
    return listed(name, value)


def _check_names(structure: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ConfigError for methods, recipes and the like that do not exist."""
    loaders: dict[str, Callable[[Any], object]] = {
        "method": load_method, "recipe": load_recipe, "optimizer": load_optimizer,
    }  # fmt: skip
    for name, load in loaders.items():
        for value in structure[name]:
            if value is not None:
                load(value)
    for name, allowed in (("recompute", RECOMPUTE), ("sharding", SHARDING)):
        for value in structure[name]:
            if value is not None and value not in allowed:
                raise ConfigError(f"{name} = {short(value)} is not known; {choices_text(str(value), allowed)}")


def _label(name: str, value: Any) -> Any:
    if isinstance(value, ModelConfig | Hardware | Precision | Recipe | Method | Optimizer):
        return value.name
    if name in ("targets", "offload"):
        return value if isinstance(value, str) or value is None else "+".join(value)
    if isinstance(value, LoraConfig):
        return f"{value.variant} r={short(value.rank)}"
    return getattr(value, "__name__", "custom") if callable(value) else value
