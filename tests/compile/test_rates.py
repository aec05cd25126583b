"""The rates of a device as variables of recorded formulas: another device of its kind needs no new ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import formulas as compiled
from graphsim.compile.formulas import BoundFormulas, Formulas, formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.cost.base import Cost
from graphsim.cost.rates import rates_of, with_rates
from graphsim.deployment.inference import Inference, Requests
from graphsim.hardware import Hardware
from graphsim.ops import Op
from tests.benchmarks import measure

LORA = gs.LoraConfig(rank=16)
DEPLOYMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adapter": ("llama-3.1-8b", "h100-sxm", {"lora": LORA, "engine": "vllm"}),
    "roofline": ("llama-3.1-8b", "a100-sxm-80gb", {"cost": "roofline", "parallelism": gs.Parallelism(tp=2)}),
    "experts": ("mixtral-8x7b", "b200-sxm", {"engine": "sglang", "parallelism": gs.Parallelism(tp=2, ep=2)}),
    "blend": ("llama-2-7b", "l4", {"engine": "peft", "lora": LORA}),
    "latent": ("deepseek-v2-lite", "h200-sxm", {"engine": "vllm"}),
}
FACTORS = (0.31, 0.9, 1.7)


def inference(which: str, factor: Any = 1.0) -> Inference:
    """Of a deployment whose device has all rates times a factor, each a little more."""
    model, device, described = DEPLOYMENTS[which]
    hardware = gs.load_hardware(device)
    rates = {name: rate * factor * (1.0 + 0.01 * at) for at, (name, rate) in enumerate(rates_of(hardware).items())}
    deployment = gs.Deployment(model, with_rates(hardware, rates), **described)
    return Inference(deployment=deployment, requests=Requests(batch=5, input_tokens=700, output_tokens=40))


def numbers(formulas: Any, of: Inference) -> list[Any]:
    inputs = numbers_of(of)
    asked = formulas.activities(inputs)
    return [
        *formulas.times_s(inputs),
        formulas.memory(inputs).total_bytes,
        asked.prefill.memory_s,
        asked.decode.compute_s,
    ]


@pytest.mark.parametrize("which", DEPLOYMENTS)
def test_other_rates_take_the_same_formulas_and_give_what_the_passes_give(which: str) -> None:
    first = formulas_of(inference(which))
    assert isinstance(first, BoundFormulas)
    for factor in FACTORS:
        asked = inference(which, factor)
        found = formulas_of(asked)
        assert isinstance(found, BoundFormulas)
        assert found.of is first.of or which == "blend"  # whose reference devices are those most like it
        passes = [asked.ttft_s(), asked.generation_s(), asked.one_time_s(), asked.memory().total_bytes]
        assert numbers(found, asked)[:4] == pytest.approx(passes, rel=1e-12)
        assert numbers(found, asked) == pytest.approx(numbers(Formulas(asked), asked), rel=1e-12)


@pytest.mark.parametrize("which", [which for which in DEPLOYMENTS if which != "blend"])
def test_rates_as_arrays_give_what_each_of_them_gives(which: str) -> None:
    together = inference(which, np.array(FACTORS))
    found = formulas_of(together)
    assert isinstance(found, Formulas)
    for at, factor in enumerate(FACTORS):
        alone = inference(which, factor)
        own = numbers(formulas_of(alone), alone)
        assert [np.broadcast_to(x, 3)[at] for x in numbers(found, together)] == pytest.approx(own, rel=1e-12)


def test_who_stands_in_for_a_device_that_nobody_measured_is_asked_of_single_rates() -> None:
    with pytest.raises(gs.ConfigError, match="l4.*rates as arrays.*roofline"):
        formulas_of(inference("blend", np.array(FACTORS)))


def test_rates_of_a_device_are_named_and_can_be_put_back() -> None:
    device = gs.load_hardware("h100-sxm")
    rates = rates_of(device)
    assert {"device.memory_bytes_per_s", "device.flops_per_s.bf16", "device.links.0.latency_s"} <= set(rates)
    assert with_rates(device, rates) == device
    assert with_rates(device, {"device.clock_hz": 1e9}) == replace(device, clock_hz=1e9)


def test_what_is_no_rate_shapes_formulas_of_its_own() -> None:
    plain = inference("adapter")
    for change in ({"cores": 100.0}, {"flops_per_s": {"bf16": 1e15}}, {"architecture": "ampere"}):
        device: Hardware = replace(plain.hardware, **change)
        other = replace(plain, deployment=gs.Deployment("llama-3.1-8b", device, lora=LORA, engine="vllm"))
        one, two = formulas_of(plain), formulas_of(other)
        assert isinstance(one, BoundFormulas) and isinstance(two, BoundFormulas) and one.of is not two.of


def test_a_users_cost_function_sees_the_rates_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may ask for anything of a device, so that its prices are recorded for each."""

    def cost(op: Op, hardware: Hardware) -> Cost:
        return Cost(busy_s=1e-6 if hardware.memory_bytes_per_s > 2e12 else 2e-6)

    monkeypatch.setattr(compiled, "BoundFormulas", None)
    device = gs.load_hardware("h100-sxm")
    slow = replace(device, memory_bytes_per_s=1e12)
    fast_s, slow_s = (gs.simulate("gpt-2", d, 1, 8, 4, cost=cost, engine="reference").ttft_s for d in (device, slow))
    assert slow_s == pytest.approx(2.0 * fast_s)


def test_another_rate_costs_less_than_the_passes() -> None:
    """In calls of functions, which no other load disturbs: the formulas are there, and only numbers are put in."""
    formulas_of(inference("adapter"))
    model, _, described = DEPLOYMENTS["adapter"]

    def graphs() -> None:
        asked = inference("adapter")
        asked.prefill_graph()
        asked.decode_graph()

    def simulated() -> None:
        gs.simulate(model, inference("adapter", 1.3).hardware, 5, 700, 40, **described)

    assert measure.calls(simulated) < measure.calls(graphs)
