"""Popularity of experts and their placement, against harmonic numbers, drawn placements and drawn routings."""

from __future__ import annotations

import random

import numpy as np
import pytest

from graphsim.ops.expert_ranks import PLACEMENTS, hottest_ratio, ranks_reached, reach

COUNTS = [(8, 2), (64, 6), (128, 8), (256, 8)]


@pytest.mark.parametrize(("experts", "chosen"), [*COUNTS, (4, 4), (16, 1)])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 3.0])
def test_a_token_chooses_as_many_experts_as_it_has_to_and_none_twice(experts, chosen, skew):
    found = reach(experts, chosen, skew)
    assert found.sum() == pytest.approx(chosen) and np.all(found <= 1.0) and np.all(np.diff(found) <= 1e-12)
    free = found[found < 1.0 - 1e-9]
    ranks = np.arange(1, experts + 1)[found < 1.0 - 1e-9]
    assert free * ranks**skew == pytest.approx(free[:1].repeat(len(free)) * ranks[:1] ** skew), "the rest follows Zipf"


def test_the_most_popular_experts_together_have_nearly_five_times_the_mean():
    """128 experts, 8 of them for a token, Zipf's law: the first is always chosen, the others share 7."""
    harmonic = sum(1 / i for i in range(2, 129))
    together = 1.0 + 7.0 * sum(1 / i for i in range(2, 17)) / harmonic
    assert (
        hottest_ratio(128, 8, 1.0, 8, "contiguous") == pytest.approx(together * 8 / 8) == pytest.approx(4.8, rel=0.01)
    )


@pytest.mark.parametrize(("experts", "chosen"), COUNTS)
@pytest.mark.parametrize("ranks", [2, 8])
def test_the_mean_over_placements_is_that_of_shuffled_experts(experts, chosen, ranks):
    draw, loads, held = random.Random(7), list(reach(experts, chosen, 1.0)), experts // ranks
    drawn = []
    for _ in range(1500):
        draw.shuffle(loads)
        drawn.append(max(sum(loads[i * held : (i + 1) * held]) for i in range(ranks)) * ranks / chosen)
    assert hottest_ratio(experts, chosen, 1.0, ranks, "random") == pytest.approx(np.mean(drawn), rel=0.015)


def test_at_random_the_hottest_of_eight_ranks_has_nearly_twice_the_mean():
    """1.95 in 200 draws of 128 experts under Zipf's law."""
    assert hottest_ratio(128, 8, 1.0, 8, "random") == pytest.approx(1.95, rel=0.04)


@pytest.mark.parametrize(("experts", "chosen"), COUNTS)
@pytest.mark.parametrize("skew", [0.3, 1.0, 2.0])
def test_the_better_the_placement_the_nearer_to_the_mean(experts, chosen, skew):
    ranks = np.array([n for n in (1, 2, 4, 8, 16, 64) if n <= experts])
    balanced, at_random, contiguous = (
        hottest_ratio(experts, chosen, skew, ranks, placement) for placement in ("balanced", "random", "contiguous")
    )
    assert np.all(balanced >= 1.0) and np.all(balanced <= at_random * (1 + 1e-9))
    assert np.all(at_random <= contiguous * (1 + 1e-9)) and np.all(contiguous <= ranks * (1 + 1e-9))
    one_by_one = [hottest_ratio(experts, chosen, skew, int(n), "random") for n in ranks]
    assert at_random.tolist() == one_by_one, "arrays give what single numbers give"


def test_copies_of_popular_experts_even_the_ranks_out():
    none, some, many = (hottest_ratio(128, 8, 1.0, 16, "balanced", copies) for copies in (0, 16, 32))
    assert none > 2.0 and some < 1.01 and many < 1.01


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_experts_that_are_all_alike_load_all_ranks_alike(placement):
    assert hottest_ratio(128, 8, 0.0, np.array([1, 8]), placement) == 1.0


@pytest.mark.parametrize(("experts", "chosen", "ranks"), [(128, 8, 8), (256, 8, 32), (8, 2, 4), (8, 2, 8)])
def test_a_token_reaches_as_many_ranks_as_a_drawn_one(experts, chosen, ranks):
    draw = np.random.default_rng(3)
    rank_of = np.arange(experts) // (experts // ranks)
    drawn = [len(set(rank_of[draw.choice(experts, chosen, replace=False)])) for _ in range(3000)]
    assert ranks_reached(experts, chosen, ranks) == pytest.approx(np.mean(drawn), rel=0.015)
