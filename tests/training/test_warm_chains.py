"""Kernels of a chain find in the last-level cache what the one ahead of them wrote."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.hardware import load_hardware
from graphsim.ops.modules import ModuleSteps
from graphsim.training.prices import TrainingPrices, prices_of
from graphsim.training.train import setup_of

DEVICE = load_hardware("l40s")


@pytest.fixture(scope="module")
def prices() -> TrainingPrices:
    return prices_of(setup_of("llama-3.2-1b", DEVICE))


def chain(share: float, kernels: float = 1.0) -> ModuleSteps:
    """Kernels of which each moves so large a part of the cache."""
    moved = share * float(DEVICE.cache_bytes) * kernels
    return ModuleSteps(role="steps", elems=moved / 8.0, moved_bytes=8.0, launches=kernels)


def test_more_bytes_never_take_less_time(prices: TrainingPrices) -> None:
    times = [float(prices(chain(share), DEVICE).latency_s) for share in np.linspace(0.02, 3.0, 60)]
    assert all(a <= b for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
def test_what_the_cache_holds_is_faster_than_one_kernel_alone(prices: TrainingPrices, share: float) -> None:
    assert prices(chain(share), DEVICE).latency_s < prices.base(chain(share), DEVICE).latency_s


def test_what_no_cache_holds_costs_what_it_does_alone(prices: TrainingPrices) -> None:
    assert prices(chain(2.0), DEVICE).latency_s == prices.base(chain(2.0), DEVICE).latency_s


def test_several_kernels_take_as_long_as_each(prices: TrainingPrices) -> None:
    one, four = (float(prices(chain(0.3, n), DEVICE).latency_s) for n in (1.0, 4.0))
    assert four == pytest.approx(4.0 * one, rel=1e-9)


@pytest.mark.parametrize("name", ["l40s", "h100-sxm", "a100-sxm-80gb", "b200-sxm"])
def test_no_chain_takes_longer_than_from_memory(name: str) -> None:
    device = load_hardware(name)
    found = prices_of(setup_of("llama-3.2-1b", device))
    for share in np.linspace(0.02, 1.2, 25):
        one = ModuleSteps(role="steps", elems=share * float(device.cache_bytes) / 8.0, moved_bytes=8.0, launches=1.0)
        assert found(one, device).latency_s <= found.base(one, device).latency_s * (1 + 1e-9)
