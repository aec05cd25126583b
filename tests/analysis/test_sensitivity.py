"""Elasticities equal those of single simulations, and obey the laws of scaling."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.sensitivity import STEP
from graphsim.cli import main

TIMES = ("ttft", "tpot", "latency")
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "alone": {"parallelism": gs.Parallelism()},
    "tensor parallel with an adapter": {"parallelism": gs.Parallelism(tp=2), "lora": gs.LoraConfig(rank=64)},
    "all kinds": {"parallelism": gs.Parallelism(tp=2, pp=2, dp=2), "lora": gs.LoraConfig(rank=16)},
}


def faster(device: gs.Hardware, name: str, by: float) -> gs.Hardware:
    links = device.links
    if name == "memory_bandwidth":
        return replace(device, memory_bytes_per_s=device.memory_bytes_per_s * by)
    if name == "peak_flops":
        peaks = {key: peak * by for key, peak in device.flops_per_s.items()}
        return replace(device, flops_per_s=peaks, vector_flops_per_s=device.vector_flops_per_s * by)
    if name == "launch":
        return replace(device, launch_s=device.launch_s * by)
    if name == "link_bandwidth":
        return replace(device, links=tuple(replace(link, bytes_per_s=link.bytes_per_s * by) for link in links))
    return replace(device, links=tuple(replace(link, latency_s=link.latency_s * by) for link in links))


@pytest.mark.parametrize("asked", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_rates_move_the_latency_as_in_single_simulations(asked: dict[str, Any]) -> None:
    device = gs.load_hardware("h100-sxm")
    found = gs.sensitivity("llama-3.2-1b", device, 8, 300, 20, cost="roofline", **asked, engine="reference")
    for name in ("memory_bandwidth", "peak_flops", "launch", "link_bandwidth", "link_latency"):
        low, high = (
            gs.simulate(
                "llama-3.2-1b", faster(device, name, by), 8, 300, 20, cost="roofline", **asked, engine="reference"
            )
            for by in (1 - STEP, 1 + STEP)
        )
        for time in TIMES:
            ratio = getattr(high, f"{time}_s") / getattr(low, f"{time}_s")
            assert found.loc[name, time] == pytest.approx(np.log(ratio) / np.log((1 + STEP) / (1 - STEP)), abs=1e-6)


@pytest.mark.parametrize("asked", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_what_all_rates_and_latencies_take_adds_up_to_the_whole(asked: dict[str, Any]) -> None:
    """Euler's theorem: a device faster in everything by one factor takes less time by that factor."""
    found = gs.sensitivity("llama-3.1-8b", "h100-sxm", 8, cost="roofline", **asked, engine="reference")
    rates = found.loc[["memory_bandwidth", "peak_flops", "link_bandwidth"]].sum()
    fixed = found.loc[["launch", "link_latency"]].sum()
    for time in TIMES:
        assert fixed[time] - rates[time] == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("batch", 14, 18), ("input_tokens", 448, 576), ("output_tokens", 28, 36), ("rank", 8, 32)],
)
def test_whole_numbers_move_the_latency_as_in_single_simulations(name: str, low: int, high: int, cost: str) -> None:
    now = {"batch": 16, "input_tokens": 512, "output_tokens": 32, "rank": 16}

    def simulated(numbers: dict[str, int]) -> gs.Estimate:
        lora = gs.LoraConfig(rank=numbers["rank"], rank_pattern={"q_proj": numbers["rank"]})
        sizes = (numbers["batch"], numbers["input_tokens"], numbers["output_tokens"])
        return gs.simulate("llama-3.2-1b", "h100-sxm", *sizes, lora=lora, cost=cost, engine="reference")

    lora = gs.LoraConfig(rank=16, rank_pattern={"q_proj": 16})
    found = gs.sensitivity("llama-3.2-1b", "h100-sxm", 16, 512, 32, lora=lora, cost=cost, engine="reference")
    one, other = simulated(now | {name: low}), simulated(now | {name: high})
    for time in TIMES:
        expected = np.log(getattr(other, f"{time}_s") / getattr(one, f"{time}_s")) / np.log(high / low)
        assert found.loc[name, time] == pytest.approx(expected, abs=2e-4)


def test_memory_bound_decode_hangs_on_bandwidth_and_compute_bound_prefill_on_the_peak() -> None:
    found = gs.sensitivity("llama-3.1-8b", "h100-sxm", batch=1, input_tokens=8192, engine="reference")
    assert found.loc["memory_bandwidth", "tpot"] < -0.7 and found["ttft"].idxmin() == "peak_flops"
    assert found.loc["link_bandwidth", "latency"] == 0.0


def test_launches_matter_with_fitted_costs_too() -> None:
    found = gs.sensitivity("gpt-2", "h100-sxm", cost="calibrated", engine="reference")
    assert 0.1 < found.loc["launch", "tpot"] < 1.0


def test_values_are_those_of_the_run() -> None:
    device = gs.load_hardware("h100-sxm")
    found = gs.sensitivity("llama-3.1-8b", device, 4, 100, 50, lora=gs.LoraConfig(rank=8), engine="reference")["value"]
    assert found["memory_bandwidth"] == device.memory_bytes_per_s and found["peak_flops"] == device.peak("bf16")
    assert list(found[["batch", "input_tokens", "output_tokens", "rank"]]) == [4, 100, 50, 8]


def test_there_is_no_rank_without_a_dynamic_adapter_and_no_link_without_links() -> None:
    for lora in (None, gs.LoraConfig(strategy="merge"), gs.LoraConfig(rank=0)):
        assert "rank" not in gs.sensitivity("gpt-2", "h100-sxm", lora=lora, engine="reference").index
    alone = replace(gs.load_hardware("l4"), links=())
    assert not set(gs.sensitivity("gpt-2", alone, engine="reference").index) & {"link_bandwidth", "link_latency"}


def test_the_smallest_scenario_looks_upwards_only() -> None:
    found = gs.sensitivity("gpt-2", "l4", 1, 1, 1, lora=gs.LoraConfig(rank=1), cost="roofline", engine="reference")
    assert np.isfinite(found.to_numpy()).all() and (found.loc["batch", list(TIMES)] >= 0).all()


def test_arrays_of_scenarios_are_refused() -> None:
    with pytest.raises(gs.ConfigError, match="one scenario; found arrays"):
        gs.sensitivity("gpt-2", "l4", batch=np.array([1, 2]), engine="reference")


def test_the_command_prints_what_the_function_returns(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sensitivity", "llama-3.2-1b", "--hardware", "h100-sxm", "--batch", "4", "--tp", "2", "--lora", "rank=8"]
    command += ["--engine", "reference"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["elasticities"]
    expected = gs.sensitivity(
        "llama-3.2-1b", "h100-sxm", 4, parallelism=gs.Parallelism(tp=2), lora=gs.LoraConfig(rank=8), engine="reference"
    )
    assert document == expected.to_dict("index")
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + len(expected) and "3.35 TB/s" in lines[4] and "-0." in lines[4]
    assert lines[0].startswith("llama-3.2-1b on 2 x h100-sxm (tp 2), engine reference, bf16; calibrated")
