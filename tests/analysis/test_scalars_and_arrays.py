"""A list of scenarios gives what each of them gives alone: memory of slots is rounded by the allocator in both."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs

MODEL, DEVICE = "llama-3.1-8b", "h100-sxm"


def test_as_many_adapters_fit_alone_as_in_a_list() -> None:
    tokens = [0, 160_000, 200_000]
    alone = [gs.adapters_that_fit(MODEL, DEVICE, each) for each in tokens]
    assert np.array_equal(gs.adapters_that_fit(MODEL, DEVICE, tokens), alone)


def test_as_many_adapters_of_each_rank_fit_alone_as_in_a_list() -> None:
    alone = [gs.adapters_that_fit(MODEL, DEVICE, 1000, gs.LoraConfig(rank=rank)) for rank in (8, 64)]
    assert np.array_equal(gs.adapters_that_fit(MODEL, DEVICE, 1000, gs.LoraConfig(rank=[8, 64])), alone)


def test_a_scenario_without_room_holds_no_adapters_and_only_such_ones_are_an_error() -> None:
    assert gs.adapters_that_fit(MODEL, DEVICE, [10**6, 0])[0] == 0.0
    with pytest.raises(gs.InfeasibleError, match="do not fit beside"):
        gs.adapters_that_fit(MODEL, DEVICE, [10**6, 10**7])


def test_the_cache_holds_as_many_tokens_alone_as_in_a_list() -> None:
    cases = ((1, 8), (8, 16), (64, 64))
    alone = [gs.footprint(MODEL, DEVICE, gs.LoraConfig(max_loras=n, rank=rank)).kv_tokens for n, rank in cases]
    slots, ranks = np.transpose(cases)
    assert np.array_equal(gs.footprint(MODEL, DEVICE, gs.LoraConfig(max_loras=slots, rank=ranks)).kv_tokens, alone)
