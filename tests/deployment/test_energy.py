"""Energy of estimates: joules are watts times seconds times devices, for one scenario, many, and sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.errors import ConfigError

CASES: list[dict[str, Any]] = [
    {"model": "llama-3.1-8b", "hardware": "h100-sxm", "batch": 8},
    {"model": "llama-3.1-8b", "hardware": "h100-sxm", "batch": 1, "output_tokens": 1},
    {"model": "llama-3.1-70b", "hardware": "b200-sxm", "batch": 16, "parallelism": gs.Parallelism(tp=2, pp=2)},
    {"model": "qwen3-30b-a3b", "hardware": "l4", "batch": 4, "parallelism": gs.Parallelism(tp=4, ep=4, dp=2)},
    {"model": "llama-3.1-8b", "hardware": "a100-sxm-80gb", "lora": gs.LoraConfig(rank=16), "engine": "vllm"},
]


@pytest.mark.parametrize("case", CASES)
def test_joules_are_watts_times_seconds_times_devices(case: dict[str, Any]) -> None:
    found = gs.simulate(**{"engine": "reference", **case})
    energy, devices = found.energy, float(case.get("parallelism", gs.Parallelism()).devices)
    tokens = float(found.tokens_per_s * found.latency_s)
    assert found.energy_per_token_j * tokens == pytest.approx(found.watts * found.latency_s * devices)
    assert energy.total_j == pytest.approx(energy.prefill_j + energy.decode_j)
    assert energy.idle_watts < min(energy.prefill_watts, energy.decode_watts)
    assert max(energy.prefill_watts, energy.decode_watts) <= energy.limit_watts
    assert (energy.decode_j == 0) == (case.get("output_tokens") == 1)
    told = found.to_dict()
    assert told["energy_per_token_j"] == pytest.approx(found.energy_per_token_j)
    assert told["energy"]["origin"]


def test_a_batch_costs_less_per_token_and_draws_more() -> None:
    found = gs.simulate("llama-3.1-8b", "h100-sxm", batch=np.array([1, 2, 4, 8, 16, 32, 64]), engine="reference")
    assert np.all(np.diff(found.energy_per_token_j) < 0)
    assert np.all(np.diff(found.watts) >= 0)


def test_scenarios_are_single_estimates() -> None:
    batches, outputs = np.array([1, 8, 64]), np.array([1, 2, 300])
    many = gs.simulate("llama-3.1-8b", "h100-sxm", batch=batches, output_tokens=outputs, engine="reference")
    for i, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
        one = gs.simulate("llama-3.1-8b", "h100-sxm", batch=int(batch), output_tokens=int(output), engine="reference")
        assert many.energy_per_token_j[i] == pytest.approx(one.energy_per_token_j, rel=1e-3)
        assert many.energy.decode_watts[i] == pytest.approx(one.energy.decode_watts, rel=1e-3)


@pytest.mark.slow
def test_a_sweep_has_what_an_estimate_has() -> None:
    models = ["llama-3.1-8b", "mixtral-8x7b"]
    frame = gs.sweep(
        models, "h100-sxm", batch=[1, 32], tp=[1, 2], pp=[1, 2], output_tokens=[1, 100], engine="reference"
    )
    for row in frame.to_dict("records"):
        degrees = gs.Parallelism(tp=int(row["tp"]), pp=int(row["pp"]))
        asked = {"batch": int(row["batch"]), "output_tokens": int(row["output_tokens"])}
        one = gs.simulate(row["model"], "h100-sxm", parallelism=degrees, **{"engine": "reference", **asked})
        assert row["watts"] == pytest.approx(one.watts, rel=1e-3)
        assert row["energy_per_token_j"] == pytest.approx(one.energy_per_token_j, rel=1e-3)


def test_the_passes_and_the_formulas_agree() -> None:
    whole = gs.simulate("llama-3.1-8b", "h100-sxm", batch=8, output_tokens=100, engine="reference")
    degrees = gs.Parallelism(tp=np.array([1.0, 2.0]))  # type: ignore[arg-type]
    through = gs.simulate(
        "llama-3.1-8b", "h100-sxm", batch=8, output_tokens=100, parallelism=degrees, engine="reference"
    )
    assert through.watts[0] == pytest.approx(whole.watts, rel=1e-3)
    assert through.energy_per_token_j[0] == pytest.approx(whole.energy_per_token_j, rel=1e-3)


def test_a_device_without_power_has_no_energy() -> None:
    device = gs.load_hardware("h100-sxm")
    from dataclasses import replace

    silent = replace(device, power_w=0.0)
    found = gs.simulate("llama-3.1-8b", silent, engine="reference")
    assert np.isnan(found.watts) and np.isnan(found.energy_per_token_j)
    assert found.to_dict()["watts"] is None
    assert gs.sweep("llama-3.1-8b", silent, batch=[1], engine="reference").energy_per_token_j.isna().all()
    with pytest.raises(ConfigError, match="energy_per_token"):
        gs.best("llama-3.1-8b", silent, "energy_per_token", batch=[1, 2], engine="reference")


def test_best_by_energy_takes_the_least() -> None:
    found = gs.best(
        "llama-3.1-8b", ["h100-sxm", "l4"], "energy_per_token", batch=[1, 8], input_tokens=100, engine="reference"
    )
    assert found["energy_per_token_j"].is_monotonic_increasing
