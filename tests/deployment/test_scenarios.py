"""The scenario axis: a hundred thousand scenarios in one call are what each of them is alone."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs

MANY, SINGLE = 100_000, 200


@pytest.fixture(scope="module")
def scenarios() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "batch": rng.integers(1, 257, MANY),
        "input_tokens": rng.integers(1, 32_769, MANY),
        "output_tokens": rng.integers(1, 2_049, MANY),
        "tp": rng.choice([1, 2, 4, 8], MANY),
        "rank": rng.choice([0, 8, 16, 64, 256], MANY),
    }


def asked(drawn: dict[str, np.ndarray], rows: object) -> gs.Estimate:
    at = {name: values[rows] for name, values in drawn.items()}
    return gs.simulate(
        "llama-3.1-8b",
        "h100-sxm",
        at["batch"],
        at["input_tokens"],
        at["output_tokens"],
        parallelism=gs.Parallelism(tp=at["tp"]),
        lora=gs.LoraConfig(rank=at["rank"]),
        cost="roofline",
        engine="reference",
    )


@pytest.fixture(scope="module")
def many(scenarios: dict[str, np.ndarray]) -> gs.Estimate:
    return asked(scenarios, slice(None))


@pytest.mark.parametrize("name", ["ttft_s", "tpot_s", "latency_s", "tokens_per_s"])
def test_every_scenario_has_its_figures(many: gs.Estimate, name: str) -> None:
    values = getattr(many, name)
    assert values.shape == (MANY,) and np.all(np.isfinite(values)) and np.all(values > 0)


def test_a_hundred_thousand_in_one_call_are_two_hundred_singly(many: gs.Estimate, scenarios: dict) -> None:
    for i in range(0, MANY, MANY // SINGLE):
        one = asked({name: values.tolist() for name, values in scenarios.items()}, i)
        for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s"):
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-9), (i, name)
        for name in ("total_bytes", "kv_cache_bytes", "weights_bytes", "adapters_bytes", "max_batch", "fits"):
            found = np.broadcast_to(getattr(many.memory, name), (MANY,))[i]
            assert found == pytest.approx(getattr(one.memory, name), rel=1e-12), (i, name)


def test_hardware_may_lie_on_the_scenario_axis_as_well() -> None:
    from dataclasses import replace

    device = gs.load_hardware("l4")
    factor = np.array([0.5, 1.0, 2.0])
    hardware = replace(device, memory_bytes_per_s=device.memory_bytes_per_s * factor)
    found = gs.simulate("gpt-2", hardware, output_tokens=5, cost="roofline", engine="reference").tpot_s
    for i, f in enumerate(factor):
        alone = replace(device, memory_bytes_per_s=device.memory_bytes_per_s * f)
        assert found[i] == pytest.approx(
            gs.simulate("gpt-2", alone, output_tokens=5, cost="roofline", engine="reference").tpot_s
        )
