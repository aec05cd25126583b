"""The choices of a grid as columns of a table: numbers, and categorical names; defaults for choices that were not
given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from graphsim.cost.choose import choose_cost
from graphsim.deployment.kernels import table_of
from graphsim.hardware import Hardware
from graphsim.lora.profile import load_profile
from graphsim.models.config import ModelConfig
from graphsim.ops.precision import Precision
from graphsim.sweeps.adapters import LORA, label_of
from graphsim.sweeps.grid import DEFAULTS, DEGREES, NUMBERS, OPTIONAL, SPECULATION, Grid

TAKEN_FROM = {"precision": ("model",), "cost": ("hardware", "engine")}
"""Choices whose defaults depend on others."""


def choices_table(grid: Grid) -> pd.DataFrame:
    """One row per scenario, one column per choice. Whole numbers are integers in every part of a grid."""
    columns: dict[str, Any] = {}
    rows = _entries(grid)
    for axis, row in zip(grid.axes, rows, strict=True):
        for name, column in axis.columns.items():
            if name in (*NUMBERS, *DEGREES):
                columns[name] = np.asarray(column)[row]
    for name in (*DEFAULTS, *OPTIONAL):
        if name not in columns and any(name in axis.names for axis in grid.axes):
            columns[name] = _named(grid, rows, name)
    return pd.DataFrame({name: columns[name] for name in (*DEFAULTS, *OPTIONAL) if name in columns})


def _entries(grid: Grid) -> list[np.ndarray]:
    """For each axis, the entry index of each row."""
    axes = range(len(grid.axes))
    indices = [np.arange(len(grid.axes[i])).reshape([-1 if j == i else 1 for j in axes]) for i in axes]
    return [np.broadcast_to(index, grid.shape).ravel() for index in indices]


def _named(grid: Grid, rows: list[np.ndarray], name: str) -> pd.Categorical:
    """The column of a choice that is not a number.

    A default depends on other choices too: there is a label for each combination of their entries.
    """
    asked = {name, *TAKEN_FROM.get(name, ())}
    axes = [i for i, axis in enumerate(grid.axes) if axis.names & asked]
    shape = [len(grid.axes[i]) for i in axes]
    labels = np.empty(int(np.prod(shape)), dtype=object)
    for number, entry in enumerate(np.ndindex(*shape)):
        chosen: dict[str, Any] = {}
        for i, at in zip(axes, entry, strict=True):
            chosen |= {key: grid.axes[i].columns[key][at] for key in asked & grid.axes[i].names}
        labels[number] = _label(name, chosen)
    codes, texts = pd.factorize(labels)
    return pd.Categorical.from_codes(codes[np.ravel_multi_index([rows[i] for i in axes], shape)], pd.Index(texts))


def _label(name: str, chosen: Mapping[str, Any]) -> Any:
    value = chosen[name]
    if name == "precision":
        return value.name if isinstance(value, Precision) else value or chosen["model"].own_precision.name
    if name == "cost" and value in (None, "calibrated"):
        device = chosen["hardware"]
        return choose_cost(None, device, table_of(load_profile(chosen["engine"]), device))[1]
    if isinstance(value, ModelConfig | Hardware):
        return value.name
    if name == "engine":
        return load_profile(value).name
    if name == SPECULATION:
        return "none" if value is None else value.label
    if name == LORA:
        return label_of(value)
    if name == "targets":
        return value if isinstance(value, str) else "+".join(value or ())
    return getattr(value, "__name__", "custom") if callable(value) else value
