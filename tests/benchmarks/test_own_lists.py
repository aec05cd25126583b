"""A user's own list of scenarios, every batch and length different, against what a core does at best.

The measure is the rate at which one core does 500 float64 operations a scenario on arrays that stay in its cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from tests.benchmarks import measure

COUNT = 2**17
DRAW = np.random.default_rng(0)
SCENARIOS: dict[str, Any] = {
    "batch": DRAW.integers(1, 129, COUNT), "input_tokens": DRAW.integers(50, 7000, COUNT),
    "output_tokens": DRAW.integers(2, 1000, COUNT),
}  # fmt: skip
LEAST = {"roofline": 0.1, "calibrated": 0.02}
"""Of the rate of plain operations, for each cost model."""


def plain() -> None:
    """500 operations on each of 4096 numbers, in the cache."""
    values = DRAW.random(4096)
    for _ in range(500):
        np.multiply(values, 1.0000001, out=values)


def ways(cost: str) -> dict[str, Callable[[], object]]:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16), cost=cost)
    return {
        "simulate": lambda: gs.simulate(deployment, **SCENARIOS).latency_s,
        "zipped sweep": lambda: gs.sweep(deployment, **SCENARIOS, zipped=[tuple(SCENARIOS)]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", ["simulate", "zipped sweep"])
@pytest.mark.parametrize("cost", LEAST)
def test_own_lists_run_at_a_share_of_what_a_core_does(cost: str, way: str) -> None:
    asked = ways(cost)[way]
    asked()
    shares = []
    for _ in range(5):
        plain_s, asked_s = measure.cpu_seconds(plain, asked, turns=1)
        shares.append(plain_s / 4096 / (asked_s / COUNT))
    print(f"{way}, {cost}: {max(shares):.4f}")
    assert max(shares) >= LEAST[cost]
