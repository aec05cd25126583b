"""Another value of a fitted constant costs a call of the formulas, not a recording."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from tests.benchmarks.measure import cpu_seconds
from tests.compile.test_constants import calibrated_anew, drawn, inference

MANY = 100
"""Draws of all constants that are evaluated together."""


@pytest.mark.slow
def test_another_constant_costs_a_call() -> None:
    asked, seeds = inference("adapter"), count(1)
    formulas, numbers = Formulas(asked, constants=True), numbers_of(asked)

    def anew() -> None:
        Formulas(calibrated_anew(asked, drawn(formulas.constants, next(seeds)))).times_s(numbers)

    def call() -> None:
        formulas.times_s(numbers | drawn(formulas.constants, next(seeds)))

    def together() -> None:
        draws = [drawn(formulas.constants, next(seeds)) for _ in range(MANY)]
        formulas.times_s(numbers | {name: np.array([one[name] for one in draws]) for name in draws[0]})

    together()
    anew_s, call_s, together_s = cpu_seconds(anew, call, together)
    print(f"anew {1e3 * anew_s:.1f} ms, a call {1e3 * call_s:.2f} ms, one of {MANY} {1e3 * together_s / MANY:.2f} ms")
    assert call_s < anew_s / 4.0
    assert together_s / MANY < call_s
