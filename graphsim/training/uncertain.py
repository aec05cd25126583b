"""The ranges in which a training step's figures are expected: its kernels' residuals, sampled through its schedule.

As for the steps of an inference (`graphsim.deployment.intervals`), and in addition the deviation of whole steps from
the sum of their kernels: `Rates.spread`, which all of a step's kernels share.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from graphsim.cost.calibrated import Prices
from graphsim.cost.residuals import coverage_of
from graphsim.cost.surfaces.tables import Array
from graphsim.deployment.intervals import MOST_UNJUDGED, Step, latin_hypercube, width_of
from graphsim.errors import ConfigError, choices_text
from graphsim.training.rates import rates_of
from graphsim.units import Num, short

WHOLE = "step"
"""The name of the error of whole steps, among those of families."""

TIMES, RATES = ("step_s",), ("tokens_per_s", "tokens_per_s_per_gpu", "mfu", "hfu")


class StepUncertainty:
    """The uncertainty of a training estimate's numbers."""

    def __init__(self, estimate: Any) -> None:
        self._estimate = estimate

    def interval(self, name: str, coverage: float) -> tuple[Num, Num]:
        """The low and the high end. Raises ConfigError as `TrainEstimate.interval` does."""
        if name not in (*TIMES, *RATES):
            raise ConfigError(f"interval of {short(name)} is not known; {choices_text(str(name), (*TIMES, *RATES))}")
        share = coverage_of(coverage)
        if self.missing:
            raise ConfigError(f"interval of {name}: {self.missing}")
        value = getattr(self._estimate, name)
        relative = self._relative if name in TIMES else 1.0 / self._relative
        low, high = np.quantile(relative, ((1.0 - share) / 2.0, (1.0 + share) / 2.0), axis=0)
        return (low * value, high * value) if np.ndim(value) else (float(low[0] * value), float(high[0] * value))

    def widths(self, coverage: float, scenario: int = 0) -> dict[str, float]:
        """How wide the interval of the step is with the errors of one family of kernels alone, the widest first.

        In parts of the estimate; WHOLE stands for how far whole steps lie from the sum of their kernels. Empty where
        there is no interval.
        """
        if self.missing:
            return {}
        scores, kernels = self._scores, self._step.kernels
        alone = {WHOLE: self._whole(scores)[:, None]}
        for family in dict.fromkeys(kernels.values()):
            own = {family, *(key for key, whose in kernels.items() if whose == family)}
            alone[family] = self._step.relative({which: scores[which] for which in own})
        found = {which: width_of(values, coverage_of(coverage), scenario) for which, values in alone.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def missing(self) -> str:
        """Why there is no interval; "" where there is one."""
        deployment = self._estimate.setup.deployment
        prices = deployment.price
        if not isinstance(prices, Prices):
            return f"no residuals are recorded for times of the cost model '{deployment.cost_model}'"
        if not prices.has_records:
            return f"the calibration behind {deployment.device.name} holds no residuals; calibrate it again"
        part, kinds = self._step.unjudged()
        if part > MOST_UNJUDGED:
            return f"{part:.0%} of the step are operations without measurements ({kinds})"
        return ""

    @cached_property
    def _step(self) -> Step:
        deployment = self._estimate.setup.deployment
        return Step(self._estimate.build(), deployment.price, deployment.device)

    @cached_property
    def _scores(self) -> dict[Any, Array]:
        kernels = self._step.kernels
        names: list[Any] = [WHOLE, *dict.fromkeys(kernels.values()), *kernels]
        return dict(zip(names, latin_hypercube(len(names)), strict=True))

    def _whole(self, scores: dict[Any, Array]) -> Array:
        """The common factor on all kernels of a step, at each draw."""
        return np.asarray(np.exp(rates_of(self._estimate.setup.deployment.device).spread * scores[WHOLE]))

    @cached_property
    def _relative(self) -> Array:
        """The step at each draw as a multiple of its estimate, by scenario."""
        return np.asarray(self._step.relative(self._scores) * self._whole(self._scores)[:, None])
