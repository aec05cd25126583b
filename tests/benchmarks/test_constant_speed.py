"""Another value of a fitted constant costs a call of the formulas, not a recording."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from tests.benchmarks.measure import cpu_seconds
from tests.compile.test_constants import drawn, inference, recalibrated

MANY = 100
"""Draws of all constants that are evaluated together."""


@pytest.mark.slow
def test_another_constant_costs_a_call() -> None:
    asked, seeds = inference("adapter"), count(1)
    formulas, numbers = Formulas(asked, constants=True), numbers_of(asked)

    def traced() -> None:
        Formulas(recalibrated(asked, drawn(formulas.constants, next(seeds)))).times_s(numbers)

    def call() -> None:
        formulas.times_s(numbers | drawn(formulas.constants, next(seeds)))

    def together() -> None:
        draws = [drawn(formulas.constants, next(seeds)) for _ in range(MANY)]
        formulas.times_s(numbers | {name: np.array([one[name] for one in draws]) for name in draws[0]})

    together()
    traced_s, call_s, together_s = cpu_seconds(traced, call, together)
    many_s = together_s / MANY
    print(f"traced again {1e3 * traced_s:.1f} ms, one call {1e3 * call_s:.2f} ms, each of {MANY} {1e3 * many_s:.2f} ms")
    assert call_s < traced_s / 4.0
    assert many_s < call_s
