"""What the first call of a deployment costs: against its graphs, built of numbers, and three calls when it is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

import graphsim as gs
from graphsim.cost.rates import rates_of, with_rates

LORA = gs.LoraConfig(rank=16)
KNOWN: dict[str, Any] = {"model": "llama-3.1-8b", "hardware": "h100-sxm", "lora": LORA, "engine": "vllm"}
"""What a process has been asked before."""

NEW: dict[str, list[dict[str, Any]]] = {
    "model": [KNOWN | {"model": name} for name in ("qwen3-8b", "llama-2-7b", "mistral-7b", "gemma-2-9b", "qwen2.5-7b")],
    "degrees": [KNOWN | {"parallelism": gs.Parallelism(tp=tp)} for tp in (2, 4, 8)],
    "replicas": [KNOWN | {"parallelism": gs.Parallelism(dp=dp)} for dp in (2, 3)],
}
MOST = {"rate": 0.7, "replicas": 0.5, "cost": 2.0, "model": 4.0, "degrees": 4.0}
"""Of the first call; asked was 1. What is above is the price of recording: the same graphs with symbols, a formula for
each price, a schedule of formulas and the programs that evaluate them (docs/compiler.md)."""

_RATES = count(1)


def other_rate() -> dict[str, Any]:
    """A device of which one rate is new."""
    device = gs.load_hardware("h100-sxm")
    return KNOWN | {"hardware": replace(device, memory_bytes_per_s=1e12 + 1e9 * next(_RATES))}


def other_cost() -> dict[str, Any]:
    """A device whose sizes are others too, under a cost model that was not asked: the graphs are known."""
    device = gs.load_hardware("h100-sxm")
    rates = {name: rate * (1.0 + 0.01 * next(_RATES)) for name, rate in rates_of(device).items()}
    return KNOWN | {"hardware": replace(with_rates(device, rates), cores=100.0 + next(_RATES)), "cost": "roofline"}


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def first_over_known(asked: dict[str, Any]) -> float:
    """The first call over the time of its graphs and of three calls with other numbers."""
    gs.load_model(asked["model"])
    gs.simulate(**KNOWN)
    first_s = seconds(lambda: gs.simulate(**asked, batch=8).latency_s)
    warm_s = min(
        seconds(lambda n=n: gs.simulate(**asked, batch=9 + n, input_tokens=600 + n).latency_s) for n in range(3)
    )
    deployment = gs.Deployment(**asked)

    def graphs() -> None:
        deployment.prefill(8.0, 512.0)
        deployment.decode(8.0, 575.0)

    return first_s / (min(seconds(graphs) for _ in range(3)) + 3.0 * warm_s)


@pytest.mark.slow
@pytest.mark.parametrize("which", MOST)
def test_the_first_call_of_a_deployment_costs_little_more_than_its_graphs(which: str) -> None:
    made = {"rate": other_rate, "cost": other_cost}
    asked = [made[which]() for _ in range(5)] if which in made else NEW[which]
    found = [first_over_known(one) for one in asked]
    print(f"first call of another {which}: {', '.join(f'{ratio:.2f}' for ratio in found)}")
    assert min(found) < MOST[which]
