"""Probabilities of accepted tokens: moments against sums, draws against moments, what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.speculation.acceptance import AcceptedDraws, steps_for, tokens_per_step

CASES = [(0.8, 3), (0.0, 4), (1.0, 4), ((0.9, 0.5, 0.2), 3), ({0: 0.3, 1: 0.2, 3: 0.5}, 3), (0.6, 0)]


def chances(acceptance: object, tokens: int) -> dict[int, float]:
    """Probability of each number of accepted tokens, from every outcome of the single trials."""
    if isinstance(acceptance, dict):
        return acceptance
    each = acceptance if isinstance(acceptance, tuple) else [acceptance] * tokens
    found = dict.fromkeys(range(tokens + 1), 0.0)
    for outcome in product((True, False), repeat=tokens):
        weight = np.prod([p if good else 1.0 - p for p, good in zip(each, outcome, strict=True)])
        accepted = next((i for i, good in enumerate(outcome) if not good), tokens)
        found[accepted] += float(weight)
    return found


@pytest.mark.parametrize(("acceptance", "tokens"), CASES)
def test_mean_tokens_are_those_of_all_outcomes(acceptance: object, tokens: int) -> None:
    expected = sum((count + 1) * chance for count, chance in chances(acceptance, tokens).items())
    assert tokens_per_step(acceptance, tokens) == pytest.approx(expected)


def test_one_probability_gives_the_closed_form() -> None:
    alpha, tokens = 0.7, np.array([1.0, 2.0, 5.0])
    assert tokens_per_step(alpha, tokens) == pytest.approx((1 - alpha ** (tokens + 1)) / (1 - alpha))


@pytest.mark.parametrize(("acceptance", "tokens"), CASES)
def test_draws_follow_the_probabilities(acceptance: object, tokens: int) -> None:
    draws = AcceptedDraws(acceptance, tokens, seed=3)
    seen = np.bincount([draws.next() - 1 for _ in range(20_000)], minlength=tokens + 1) / 20_000
    expected = [chances(acceptance, tokens).get(count, 0.0) for count in range(tokens + 1)]
    assert np.allclose(seen, expected, atol=0.02)


def test_a_seed_gives_the_same_draws() -> None:
    one, other, third = (AcceptedDraws(0.5, 3, seed) for seed in (1, 1, 2))
    first = [one.next() for _ in range(100)]
    assert first == [other.next() for _ in range(100)]
    assert first != [third.next() for _ in range(100)]


@pytest.mark.parametrize(("acceptance", "tokens"), CASES)
@pytest.mark.parametrize("wanted", [40, 255])
def test_steps_until_enough_tokens_are_those_of_many_tries(acceptance: object, tokens: int, wanted: int) -> None:
    draws, tries, steps = AcceptedDraws(acceptance, tokens, seed=1), 400, 0
    for _ in range(tries):
        have = 0
        while have < wanted:
            have += draws.next()
            steps += 1
    assert steps_for(acceptance, tokens, wanted) == pytest.approx(steps / tries, rel=0.03)


def test_no_acceptance_and_no_tokens_take_a_step_each() -> None:
    assert steps_for(0.0, 5, 100) == 100
    assert steps_for(0.9, 0, 100) == 100
    assert steps_for(1.0, 3, 1) == 1
    assert [steps_for(1.0, 3, wanted) for wanted in (4, 5, 8, 9)] == [1, 2, 2, 3]


def test_steps_of_several_scenarios_are_those_of_each() -> None:
    acceptance, tokens, wanted = np.array([0.0, 0.5, 1.0]), np.array([2.0, 3.0, 4.0]), np.array([10.0, 2000.0, 100.0])
    many = steps_for(acceptance, tokens, wanted)
    assert many == pytest.approx([steps_for(*each) for each in zip(acceptance, tokens, wanted, strict=True)])
    assert steps_for(0.5, 3.0, wanted) == pytest.approx([steps_for(0.5, 3.0, each) for each in wanted])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"acceptance": 1.5}, "speculation.acceptance = 1.5 is not allowed"),
        ({"acceptance": float("nan")}, "speculation.acceptance = nan is not allowed"),
        ({"acceptance": "most"}, "speculation.acceptance = 'most' is not allowed"),
        ({"acceptance": []}, "speculation.acceptance = [] is not allowed"),
        ({"acceptance": [0.9, 2.0, 0.1]}, "is not allowed; expected a probability from 0 to 1"),
        ({"acceptance": [0.9, 0.8]}, "has 2 probabilities for tokens = 3"),
        ({"acceptance": {0: 0.5, 1: 0.4}}, "its probabilities sum to 0.9; expected 1"),
        ({"acceptance": {4: 1.0}}, "gives 4 accepted tokens, but tokens = 3"),
        ({"acceptance": {0.5: 1.0}}, "is not allowed; expected a probability"),
        ({"tokens": -1}, "speculation.tokens = -1 is not allowed"),
        ({"tokens": 2.5}, "speculation.tokens = 2.5 is not allowed"),
        ({"tokens": 65}, "expected a whole number from 0 to 64"),
        ({"tokens": None}, "speculation.tokens = None is not allowed"),
        ({"draft": 3}, "speculation.draft = 3 is not allowed; expected a model, 'mtp' or 'ngram'"),
        ({"draft": ""}, "speculation.draft = '' is not allowed"),
        ({"draft_tp": 0}, "speculation.draft_tp = 0 is not allowed"),
        ({"seed": -1}, "speculation.seed = -1 is not allowed"),
        ({"precision": "fp99"}, "fp99"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(given: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        gs.Speculation(**{"draft": "ngram", "tokens": 3, "acceptance": 0.5, **given})
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_draws_are_those_that_come_one_by_one() -> None:
    one, many = AcceptedDraws(0.6, 3, seed=2), AcceptedDraws(0.6, 3, seed=2)
    for count in (1, 7, 4000, 300, 5000, 0, 12):
        assert many.several(count) == [one.next() for _ in range(count)]
