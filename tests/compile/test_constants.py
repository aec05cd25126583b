"""Fitted constants as variables of recorded formulas: a changed calibration needs no new recording."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from graphsim.cost.calibrated import Prices
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.memory import Memory
from graphsim.symbolic.substitute import with_fields

DEPLOYMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adapter": ("llama-3.1-8b", "h100-sxm", {"lora": gs.LoraConfig(rank=16), "engine": "vllm"}),
    "sharded": (
        "llama-3.1-8b", "h100-sxm",
        {"precision": "fp8", "engine": "vllm", "parallelism": gs.Parallelism(tp=4)},
    ),
    "experts": ("mixtral-8x7b", "b200-sxm", {"engine": "sglang", "parallelism": gs.Parallelism(tp=2, ep=2)}),
    "latent": ("deepseek-v2-lite", "h200-sxm", {"engine": "vllm"}),
}  # fmt: skip


def inference(which: str) -> Inference:
    model, device, described = DEPLOYMENTS[which]
    requests = Requests(batch=5, input_tokens=700, output_tokens=40)
    return Inference(deployment=gs.Deployment(model, device, **described), requests=requests)


def drawn(constants: dict[str, float], seed: int) -> dict[str, float]:
    """Other constants, each by itself about a fifth off."""
    draw = np.random.default_rng(seed)
    return {name: value * float(np.exp(draw.normal(0.0, 0.2))) for name, value in constants.items()}


def recalibrated(asked: Inference, constants: dict[str, float]) -> Inference:
    """The same under a calibration with other constants."""
    assert isinstance(asked.price, Prices)
    price = asked.price.with_constants(constants)
    return replace(asked, deployment=with_fields(asked.deployment, {"cost": price}))


@pytest.mark.slow
@pytest.mark.parametrize("which", DEPLOYMENTS)
def test_other_constants_give_what_a_calibration_with_them_gives(which: str) -> None:
    asked = inference(which)
    formulas, numbers = Formulas(asked, constants=True), numbers_of(asked)
    assert formulas.times_s(numbers | formulas.constants) == pytest.approx(Formulas(asked).times_s(numbers), rel=1e-12)
    for seed in range(3):
        constants = drawn(formulas.constants, seed)
        found = formulas.times_s(numbers | constants)
        other = recalibrated(asked, constants)
        assert found == pytest.approx(Formulas(other).times_s(numbers), rel=1e-12)
        assert found == pytest.approx([other.ttft_s(), other.generation_s(), other.one_time_s()], rel=1e-12)
        assert found != pytest.approx(Formulas(asked).times_s(numbers), rel=1e-3)
    memory = formulas.memory(numbers)
    assert all(getattr(memory, one.name) == getattr(asked.memory(), one.name) for one in fields(Memory))


def test_many_calibrations_at_once_give_what_each_of_them_gives() -> None:
    asked = inference("adapter")
    formulas, numbers = Formulas(asked, constants=True), numbers_of(asked)
    draws = [drawn(formulas.constants, seed) for seed in range(5)]
    together = formulas.times_s(numbers | {name: np.array([one[name] for one in draws]) for name in draws[0]})
    for at, constants in enumerate(draws):
        alone = formulas.times_s(numbers | constants)
        assert [np.broadcast_to(seconds, 5)[at] for seconds in together] == pytest.approx(alone, rel=1e-12)


def test_constants_and_rates_are_variables_of_one_formula() -> None:
    asked = inference("adapter")
    formulas = Formulas(asked, rates=True, constants=True)
    inputs = {one.name: one for one in formulas.manifest}
    launch = inputs["constants.gemm.bfloat16.launch_clocks"]
    assert (launch.unit, launch.least, launch.whole) == ("clocks", 0.0, False)
    assert launch.default == formulas.constants[launch.name] > 0.0
    assert inputs["constants.gemm.bfloat16.load_bytes_per_clock"].unit == "bytes/clock"
    assert inputs["constants.gemm.bfloat16.compute"].unit == "" and "device.clock_hz" in inputs
    usual = {one.name: one.default for one in formulas.manifest}
    assert formulas.times_s(usual) == pytest.approx(Formulas(asked).times_s(numbers_of(asked)), rel=1e-12)


def test_what_is_no_constant_is_refused_by_name() -> None:
    price = inference("latent").price
    assert isinstance(price, Prices)
    assert "constants.mla.prefill.bfloat16.tile" not in price.constants, "it decides which kernel runs"
    with pytest.raises(gs.ConfigError, match=r"constants has no 'constants.gemm.bf16.dram'.*gemm.bfloat16"):
        price.with_constants({"constants.gemm.bf16.dram": 1.0})


def test_prices_without_fits_have_no_constants() -> None:
    deployment = gs.Deployment("gpt-2", "h100-sxm", cost="roofline", engine="reference")
    asked = Inference(deployment=deployment, requests=Requests(batch=1, input_tokens=8, output_tokens=2))
    formulas = Formulas(asked, constants=True)
    assert formulas.constants == {}
    assert not any(one.name.startswith("constants.") for one in formulas.manifest)
