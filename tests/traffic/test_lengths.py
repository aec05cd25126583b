"""How long prompts and answers are, in each form in which that can be said."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.traffic.draws import Draws
from graphsim.traffic.lengths import RangeRatio, draw_lengths, length_text, mean_of, read_length
from graphsim.traffic.traffic import Traffic

MANY = 100_000


def drawn(length: Any, count: int = MANY) -> np.ndarray[Any, Any]:
    return draw_lengths("length", read_length("length", length), count, Draws(0, "inputs"))


def test_a_number_is_itself_and_a_range_has_both_ends() -> None:
    assert set(drawn(512).tolist()) == {512}
    found = drawn((3, 7))
    assert set(found.tolist()) == {3, 4, 5, 6, 7}
    assert np.bincount(found)[3:] / MANY == pytest.approx([0.2] * 5, abs=0.006)


@pytest.mark.parametrize(
    ("ratio", "client", "low", "high"),
    [
        (0.5, "vllm", 512, 1536), (0.0, "vllm", 1024, 1024), (0.999, "vllm", 1, 2047), (0.0, "sglang", 1, 1024),
        (0.5, "sglang", 512, 1024), (1.0, "sglang", 1024, 1024), (0.8, "inferencemax", 819, 1024),
    ],
)  # fmt: skip
def test_a_range_ratio_is_what_its_client_means(ratio: float, client: str, low: int, high: int) -> None:
    found = drawn(RangeRatio(tokens=1024, ratio=ratio, client=client))
    assert (found.min(), found.max()) == (low, high)
    assert found.mean() == pytest.approx((low + high) / 2, rel=0.01)


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 5000), ratio=st.floats(0, 0.99), client=st.sampled_from(["vllm", "sglang", "inferencemax"])
)
def test_range_ratios_hold_their_bounds(tokens: int, ratio: float, client: str) -> None:
    found = drawn(RangeRatio(tokens=tokens, ratio=ratio, client=client), 200)
    low = tokens * (1 - ratio) if client == "vllm" else tokens * ratio
    high = tokens * (1 + ratio) if client == "vllm" else tokens
    assert max(low - 1, 1) <= found.min() and found.max() <= high + 1


@pytest.mark.parametrize(
    ("text", "mean", "median"),
    [
        ("lognormal:mean=222,median=152", 222, 152),
        ("gamma:mean=300,cv=0.5", 300, 275),
        ("gamma:mean=300,cv=2", 300, None),
        ("exponential:mean=500", 500, 347),
        ("normal:mean=400,std=40", 400, 400),
        ("uniform:low=8,high=512", 260, 260),
        ("constant:value=7", 7, 7),
        ("zipf:exponent=1,low=1,high=2", 4 / 3, 1),
    ],
)
def test_distributions_have_the_numbers_they_are_given(text: str, mean: float, median: float | None) -> None:
    found = drawn(text)
    assert found.mean() == pytest.approx(mean, rel=0.02)
    assert median is None or np.median(found) == pytest.approx(median, rel=0.02)
    assert found.min() >= 1


def test_ends_hold_what_falls_outside() -> None:
    found = drawn("lognormal:mean=222,median=152,low=4,high=1024")
    assert (found.min(), found.max()) == (4, 1024)


def test_samples_are_drawn_as_often_as_they_are_there() -> None:
    found = drawn([10, 10, 10, 400])
    assert np.mean(found == 10) == pytest.approx(0.75, abs=0.006) and set(found.tolist()) == {10, 400}


def test_pairs_stay_pairs() -> None:
    table = Traffic.poisson(rate=1, requests=1000, input_tokens=[(10, 100), (20, 200), (30, 300)]).table()
    assert np.array_equal(table.output_tokens, 10 * table.input_tokens) and len(set(table.input_tokens.tolist())) == 3
    pairs = np.array([[10, 100], [20, 200]])
    assert set(Traffic.closed(concurrency=1, requests=99, input_tokens=pairs).table().output_tokens.tolist()) == {
        100,
        200,
    }


def test_inputs_and_outputs_are_drawn_apart() -> None:
    table = Traffic.poisson(rate=1, requests=20_000, input_tokens=(1, 1000), output_tokens=(1, 1000)).table()
    assert abs(np.corrcoef(table.input_tokens, table.output_tokens)[0, 1]) < 0.03


class Halves:
    """An object like those of scipy.stats."""

    def rvs(self, size: int, random_state: np.random.Generator) -> Any:
        return random_state.choice([2.4, 8.6], size)


def test_a_users_own_distribution_is_rounded_and_the_same_each_time() -> None:
    assert set(drawn(Halves()).tolist()) == {2, 9}
    assert np.array_equal(
        drawn(lambda rng, count: rng.integers(5, 9, count)), drawn(lambda rng, n: rng.integers(5, 9, n))
    )
    traffic = Traffic.poisson(rate=1, requests=50, input_tokens=Halves(), output_tokens=3)
    assert np.array_equal(pickle.loads(pickle.dumps(traffic)).table().input_tokens, traffic.table().input_tokens)


@pytest.mark.parametrize("shape", [0.1, 0.7, 1.0, 3.0, 40.0])
def test_gamma_numbers_have_the_moments_of_a_gamma(shape: float) -> None:
    found = Draws(3, "inputs").gamma(shape, 400_000)
    assert found.mean() == pytest.approx(1.0, abs=6 * (shape * 400_000) ** -0.5)
    assert found.var() == pytest.approx(1 / shape, rel=0.05)
    skew = np.mean((found - 1.0) ** 3) / found.std() ** 3
    assert skew == pytest.approx(2 / shape**0.5, rel=0.1, abs=0.02)


def test_normal_numbers_are_normal() -> None:
    found = Draws(5, "outputs").normal(300_001)
    assert [np.mean(found < z) for z in (-2, -1, 0, 1, 2)] == pytest.approx(
        [0.0228, 0.1587, 0.5, 0.8413, 0.9772], abs=0.003
    )


def test_means_are_known_where_they_can_be() -> None:
    known = [(512, 512), ((2, 4), 3), ([1, 2, 6], 3), (RangeRatio(tokens=100, ratio=0, client="sglang"), 50.5)]
    assert [mean_of(read_length("x", length)) for length, _ in known] == [mean for _, mean in known]
    assert mean_of(read_length("x", "gamma:mean=2,cv=1")) is None


def test_lengths_in_words() -> None:
    listed = [512, (2, 4), [1, 2], "gamma:mean=2,cv=1", lambda rng, n: np.ones(n)]
    assert [length_text(read_length("x", each)) for each in listed] == [
        "512", "2 to 4", "drawn from 2 samples", "gamma:cv=1,mean=2", "of a distribution",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (0, "= 0 is not allowed"), (-5, "= -5"), (2.5, "= 2.5"), (True, "= True"), (None, "= None"), ({}, "= {}"),
        ((5, 3), "high = 3"), ((0, 3), "low = 0"), ([], "expected a number, a range"), ([1, 0], "list has 0"),
        ([1.5], "list has 1.5"), ([[1, 2, 3]], "expected a number"), ([(1, 2)], "lists are of numbers"),
        ("weird:mean=1", "'weird' is not a distribution.*lognormal"), ("gamma:mean=3", "gamma:mean=…,cv=…"),
        ("gamma:mean=3,cv=x", "'cv=x'"), ("lognormal:mean=100,median=152", "not below its median"),
        ("gamma:mean=0,cv=1", "mean is above 0"), ("normal:mean=nan,std=1", "numbers from 0"),
        ("uniform:low=9,high=3", "low is above high"), ("zipf:exponent=1,low=0,high=9", "low is from 1"),
        (lambda rng, n: np.zeros(n), "gave 0 to 0"), (lambda rng, n: np.ones(2), "expected a number each"),
        (lambda rng, n: np.full(n, np.nan), "expected a number each"),
    ],
)  # fmt: skip
def test_lengths_that_cannot_be(length: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        drawn(length, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokens": 100, "ratio": 1.1}, "ratio = 1.1"),
        ({"tokens": 100, "ratio": 1.0}, "below 1"),
        ({"tokens": 100, "ratio": -0.1, "client": "sglang"}, "ratio = -0.1"),
        ({"tokens": 0, "ratio": 0.5}, "tokens = 0"),
        ({"tokens": 9, "ratio": 0.5, "client": "ab"}, "'ab'.*sglang"),
    ],
)
def test_range_ratios_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RangeRatio(**given)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (5, None, "output_tokens is missing"),
        ([(1, 2)], 5, "holds pairs, which include"),
        (5, [(1, 2)], "lists are of numbers"),
    ],
)
def test_both_lengths_are_said_once(inputs: Any, outputs: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Traffic.poisson(rate=1, requests=5, input_tokens=inputs, output_tokens=outputs)
