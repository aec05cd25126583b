"""Distinct adapters of a step: closed forms against drawing requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.lora import popularity


@pytest.mark.parametrize(
    "shares",
    [popularity.uniform(30), popularity.zipf(50, 1.5), popularity.power(40, 0.3), popularity.shares_of([3, 1])],
)
@pytest.mark.parametrize("base_share", [0.0, 0.4])
def test_expected_distinct_adapters_are_those_of_drawn_requests(shares: Any, base_share: float) -> None:
    assert shares.sum() == pytest.approx(1.0)
    random, requests = np.random.default_rng(7), 25
    drawn = []
    for _ in range(4000):
        wanted = random.choice(len(shares), size=requests, p=shares)
        drawn.append(len(set(wanted[random.random(requests) >= base_share])))
    assert popularity.expected_distinct(shares, requests, base_share) == pytest.approx(np.mean(drawn), rel=0.02)


def test_uniform_popularity_is_the_closed_form_of_the_measured_runs() -> None:
    assert popularity.expected_distinct(popularity.uniform(300), 220) == pytest.approx(300 * (1 - (1 - 1 / 300) ** 220))


def test_power_of_one_is_uniform_and_zipf_of_none_too() -> None:
    assert np.allclose(popularity.power(20, 1.0), popularity.uniform(20))
    assert np.allclose(popularity.zipf(20, 0.0), popularity.uniform(20))


def test_scenarios_run_along_the_requests() -> None:
    requests = np.array([1.0, 8.0, 64.0])
    found = popularity.expected_distinct(popularity.zipf(100), requests)
    assert found[0] == pytest.approx(1.0)
    assert np.all(np.diff(found) > 0)


def test_steps_without_an_adapter_become_rare_with_the_batch() -> None:
    assert popularity.probability_of_none(1, 0.5) == 0.5
    assert popularity.probability_of_none(10, 0.5) == pytest.approx(0.5**10)


def test_mixed_ranks_weigh_by_popularity() -> None:
    assert popularity.expected_rank(popularity.shares_of([1, 3]), [64, 8]) == pytest.approx(22.0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: popularity.uniform(0), "adapters = 0"),
        (lambda: popularity.zipf(5, -1), "exponent = -1"),
        (lambda: popularity.power(5, 0), "alpha = 0"),
        (lambda: popularity.shares_of([0, 0]), "not all 0"),
        (lambda: popularity.expected_rank(popularity.uniform(3), [1]), "1 ranks for 3 adapters"),
    ],
)
def test_senseless_popularity_is_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        call()
