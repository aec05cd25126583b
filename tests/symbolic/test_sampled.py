"""Long sums from a few of their values, against the values all added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.generation import sum_steps
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.kernel import Opaque
from graphsim.symbolic.sampled import LONG, long_sum, places_in
from tests.benchmarks.measure import cpu_seconds
from tests.symbolic.test_growing_sum import growing, plain

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "a line": lambda c: 3.0 * c + 7.0,
    "pages of 16": lambda c: np.ceil(c / 16.0) * 16.0 * 3.0 + 5.0,
    "a curve": lambda c: np.sqrt(c) * np.log2(c + 3.0),
    "blocks above a floor": lambda c: np.maximum(np.ceil(c / 128.0) * 2.0, 5000.0) + np.ceil(c / 4.0),
    "a window": lambda c: np.minimum(c, 4096.0) + 10.0,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("first", "count"), [(1.0, 4e5), (777.0, 2e6)])
def test_a_long_sum_is_the_plain_sum_within_a_millionth(name: str, first: float, count: float) -> None:
    function = FUNCTIONS[name]
    expected = float(np.sum(function(np.arange(first, first + count))))
    assert long_sum(function, first, count) == pytest.approx(expected, rel=1e-6)
    assert sum_steps(lambda contexts, _: function(contexts), first, count) == pytest.approx(expected, rel=1e-6)


def test_places_lie_in_their_stretch_and_stand_for_all_of_it() -> None:
    low, high = np.array([5.0, 1e6, 3.0]), np.array([6000.0, 1.3e6, 1e12])
    places, each = places_in(low, high)
    assert np.all((places >= low) & (places <= high)) and np.all(places == np.floor(places))
    np.testing.assert_allclose(each * len(places), high - low + 1.0)


@pytest.mark.parametrize("name", ["pages", "steps", "a kernel"])
@pytest.mark.parametrize("count", [LONG - 1.0, 4.0 * LONG])
def test_formulas_that_bend_often_are_sampled_where_they_are_long(name: str, count: float) -> None:
    found = growing(name)({"b": 7.0}, 100.0, count)
    assert found == pytest.approx(plain(name, 100.0, count, 7.0), rel=1e-6 if count > LONG else 1e-12)
    both = growing(name)({"b": np.array([7.0, 3.0])}, 100.0, np.array([count, 50.0]))
    np.testing.assert_allclose(both, [found, plain(name, 100.0, 50.0, 3.0)], rtol=1e-9)


def test_functions_of_which_only_values_are_known_are_sampled_too() -> None:
    tape = Tape()
    own = Opaque(lambda c, b: c**0.5 * b, "it asks")
    total = GrowingSum(tape.apply(own, tape.variable("c"), tape.variable("b")), "c")
    count = 4.0 * LONG
    expected = float(np.sum(np.sqrt(np.arange(100.0, 100.0 + count)) * 7.0))
    assert total({"b": 7.0}, 100.0, count) == pytest.approx(expected, rel=1e-6)
    assert total({"b": np.array([7.0])}, 100.0, count)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deepseek-v4-flash", "llama-3.1-8b", "gemma-2-9b"])
def test_generations_of_many_tokens_cost_what_those_of_fewer_do(model: str) -> None:
    def generated(tokens: int) -> Callable[[], object]:
        return lambda: gs.simulate(model, "b200-sxm", output_tokens=tokens, engine="reference")

    assert float(generated(10**8)().latency_s) > 100 * float(generated(10**5)().latency_s)  # type: ignore[attr-defined]
    long_s, short_s = cpu_seconds(generated(10**8), generated(10**5))
    assert long_s < 3.0 * short_s
