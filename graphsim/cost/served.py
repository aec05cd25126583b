"""Additional errors of serving engines: residuals of served benchmarks, by engine.

`served_residuals.json` holds, for each engine, for `ttft_s` and `tpot_s` and for few and many clients, quantiles of
log(measured / predicted) of served configurations, less the part that their kernels' residuals explain.
`graphsim validate served --record` makes it; other engines were not measured and add nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.cost.residuals import ALL, SCORES
from graphsim.cost.surfaces.tables import Array

FILE = "served_residuals.json"

CLIENTS = {"16": 16.0, "inf": np.inf}
"""Classes of concurrent clients, by name: their upper limits. Above 16, other prompts interrupt a server's steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedEngine:
    """Residuals of one engine: by quantity and class of clients, quantiles at PROBABILITIES."""

    quantities: Mapping[str, Mapping[str, list[float]]]

    def factors(self, quantity: str, clients: Array, scores: Array) -> Array:
        """Measured over predicted at normal scores: scores along the first axis, clients along the second."""
        table = self.quantities[quantity]
        by_class = [np.interp(scores, SCORES, table.get(name) or table[ALL]) for name in CLIENTS]
        which = np.searchsorted(list(CLIENTS.values()), clients, side="left")
        return np.asarray(np.exp(np.stack(by_class, axis=-1)[:, which]))


def served_engine(name: str) -> ServedEngine | None:
    """The residuals of an engine by its profile's name; a version without its own has those of its engine."""
    table = served_residuals()
    found = table.get(name) or table.get(name.partition("-")[0])
    return ServedEngine(quantities=found) if found else None


@cache
def served_residuals() -> Mapping[str, Mapping[str, Any]]:
    """By engine, quantity and class of clients, quantiles at PROBABILITIES."""
    found: Mapping[str, Mapping[str, Any]] = json.loads(served_path().read_text(encoding="utf-8"))["engines"]
    return found


def served_path() -> Path:
    """The path of their file."""
    return Path(str(resources.files("graphsim.cost").joinpath(FILE)))
