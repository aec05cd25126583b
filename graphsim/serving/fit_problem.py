"""Residuals of a fit of a host's constants: simulated runs compared with measured ones at a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.serving.adjusted import inner, outer
from graphsim.serving.fit_targets import Target
from graphsim.traffic.table import Floats

Simulate = Callable[[Mapping[str, float]], Mapping[str, Any]]
"""Figures of a simulated run under given constants, by the names of `vllm bench serve`'s result file."""

FAR = 0.3
"""Logarithm of predicted / measured from which a miss counts linearly instead of quadratically."""

GOOD = 0.003
"""Error of a figure below which the fit stops."""

PULL = 0.002
"""Weight of a constant's distance from its start, in trial steps, relative to a figure's relative error."""


class Problem:
    """Residuals of the fit at a point: one coordinate per constant, in its trial steps."""

    def __init__(
        self, simulators: Sequence[Simulate], targets: list[Target], names: list[str], fixed: Mapping[str, float]
    ) -> None:
        self.targets, self.names, self.simulations = targets, names, 0
        self.at = np.array([inner(name, fixed[name]) for name in names], dtype=float)
        self._start, self._simulators, self._fixed = self.at.copy(), simulators, fixed

    def values(self, at: Floats) -> dict[str, float]:
        """The constants at a point."""
        return {name: outer(name, float(place)) for name, place in zip(self.names, at, strict=True)}

    def allowed(self, at: Floats) -> Floats:
        """The nearest point within the constants' bounds."""
        return np.array([inner(name, value) for name, value in self.values(at).items()], dtype=float)

    def is_good(self, off: Floats) -> bool:
        """Whether the residuals are small enough to stop."""
        return bool(off @ off < GOOD**2 * len(self.targets))

    def figures(self, at: Floats) -> list[Mapping[str, Any]]:
        """Figures of all runs at a point."""
        self.simulations += 1
        constants = {**self._fixed, **self.values(at)}
        return [simulate(constants) for simulate in self._simulators]

    def residuals(self, at: Floats) -> Floats:
        """The residuals that the fit minimises; the last ones are the pull towards the start."""
        figures = self.figures(at)
        off = [
            target.weight * _miss(figures[target.run].get(target.metric), target.measured) for target in self.targets
        ]
        return np.concatenate([off, PULL * (at - self._start)])


def _miss(predicted: Any, measured: float) -> float:
    """Logarithm of predicted / measured, its size beyond FAR by the root that makes its square grow evenly."""
    miss = math.log(float(predicted) / measured) if predicted is not None and predicted > 0 else 1.0
    far = abs(miss)
    return math.copysign(far if far <= FAR else math.sqrt(FAR * (2.0 * far - FAR)), miss)
