"""Recorded formulas give what the passes give: for every kind of graph, and for one scenario or a grid."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.formulas import Formulas, formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.memory import Memory
from tests.catalog import NO_MLP, models
from tests.compile.against_passes import SEED, difference
from tests.golden.scenarios import scenarios

LORA = gs.LoraConfig(rank=16)
SKEWED = {
    "name": "skewed", "hidden_size": 512, "vocab_size": 1000, "layers": 4, "attention": {"heads": 8},
    "moe": {"experts": 16, "experts_per_token": 2, "intermediate_size": 512, "skew": 1.0},
}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "base": {},
    "adapter": {"lora": LORA},
    "many adapters": {"lora": gs.LoraConfig(rank=8, active_adapters=5, adapter_share=0.5, max_loras=8)},
    "ranks": {"lora": gs.LoraConfig(rank=8, rank_pattern={"q_proj": 32, r"layers\.3\.mlp\.up_proj": 4})},
    "merge": {"lora": gs.LoraConfig(rank=16, strategy="merge")},
    "tensor parallel": {"lora": LORA, "parallelism": gs.Parallelism(tp=4)},
    "fully sharded": {"lora": replace(LORA, fully_sharded_loras=True), "parallelism": gs.Parallelism(tp=4)},
    "sequence parallel": {"lora": LORA, "parallelism": gs.Parallelism(tp=4, sp=4)},
    "pipeline": {"lora": LORA, "parallelism": gs.Parallelism(pp=4)},
    "replicas": {"lora": LORA, "parallelism": gs.Parallelism(dp=2)},
    "experts": {"model": "mixtral-8x7b", "parallelism": gs.Parallelism(tp=2, ep=8)},
    "popular experts": {
        "model": SKEWED,
        "engine": "vllm-deepep",
        "parallelism": gs.Parallelism(ep=4, expert_placement="contiguous"),
    },
    "window": {"model": "gemma-2-9b"},
    "8 bits": {"precision": "fp8,kv=fp8", "hardware": "h100-sxm"},
    "few requests through a long pipeline whose host starts kernels": {
        "engine": "vllm", "batch": 3, "parallelism": gs.Parallelism(pp=8),
    },
}  # fmt: skip


CASES |= {
    f"{variant} through a pipeline that is not filled": {
        "lora": gs.LoraConfig(rank=16, active_adapters=4, variant=variant), "engine": "peft", "batch": 1,
        "parallelism": gs.Parallelism(pp=4),
    } for variant in ("lora", "bd-lora")
}  # fmt: skip


def run_of(cost: str, **case: Any) -> Inference:
    described = {"model": "llama-2-7b", "hardware": "a100-sxm-80gb", "cost": cost} | case
    batch = described.pop("batch", 5)
    requests = Requests(batch=batch, input_tokens=300, output_tokens=40)
    return Inference(deployment=gs.Deployment(**{"engine": "reference", **described}), requests=requests)


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("case", CASES)
def test_formulas_give_what_the_passes_give(case: str, cost: str) -> None:
    inference = run_of(cost, **CASES[case])
    formulas, inputs = Formulas(inference), numbers_of(inference)
    ttft_s, generation_s, one_time_s = formulas.times_s(inputs)
    assert ttft_s == pytest.approx(inference.ttft_s(), rel=1e-12)
    assert one_time_s == pytest.approx(inference.one_time_s(), rel=1e-12)
    assert generation_s == pytest.approx(inference.generation_s(), rel=1e-12)
    found, expected = formulas.memory(inputs), inference.memory()
    for field in fields(Memory):
        assert getattr(found, field.name) == pytest.approx(getattr(expected, field.name), rel=1e-12), field.name


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
def test_a_grid_gives_what_its_scenarios_give(cost: str) -> None:
    formulas = Formulas(run_of(cost, lora=LORA, parallelism=gs.Parallelism(tp=2)))
    inputs = numbers_of(run_of(cost, lora=LORA))
    batches, lengths, ranks = np.array([1.0, 7.0, 64.0]), np.array([16.0, 2000.0]), np.array([0.0, 8.0, 64.0])
    grid = {"batch": batches[:, None, None], "input_tokens": lengths[None, :, None], "rank": ranks[None, None, :]}
    ttft_s, generation_s, _ = formulas.times_s(inputs | grid)
    assert np.shape(generation_s) == (3, 2, 3)
    for at in np.ndindex(3, 2, 3):
        one = inputs | {"batch": batches[at[0]], "input_tokens": lengths[at[1]], "rank": ranks[at[2]]}
        one = {name: float(value) for name, value in one.items()}
        alone = formulas.times_s(one)
        assert ttft_s[at] == pytest.approx(alone[0], rel=1e-12)
        assert generation_s[at] == pytest.approx(alone[1], rel=1e-12)


def test_a_structure_is_recorded_once_whatever_its_numbers() -> None:
    first = formulas_of(run_of("roofline", lora=LORA))
    assert first is formulas_of(run_of("roofline", lora=gs.LoraConfig(rank=99, active_adapters=3), batch=17))
    assert first is not formulas_of(run_of("roofline", lora=replace(LORA, target_modules=("attn",))))
    assert first is not formulas_of(run_of("roofline", lora=LORA, parallelism=gs.Parallelism(tp=2)))
    assert first is not formulas_of(run_of("roofline", lora=LORA, precision="fp8", hardware="h100-sxm"))
    assert first is not formulas_of(run_of("calibrated", lora=LORA))


@pytest.mark.parametrize("model", models(but=NO_MLP))
def test_every_model_of_the_catalog_is_recorded(model: str) -> None:
    """With and without an adapter, at either price; tests/test_recordability.py has the calibrated one of adapters."""
    for cost, lora in (("roofline", LORA), ("calibrated", None)):
        assert formulas_of(run_of(cost, model=model, lora=lora, hardware="b200-sxm")) is not None, (cost, lora)


def test_a_cost_function_of_the_users_own_may_ask_for_actual_numbers() -> None:
    from graphsim.cost.roofline import roofline

    def doubled_when_large(op: Any, hardware: Any) -> Any:
        cost = roofline(op, hardware)
        return replace(cost, busy_s=cost.busy_s * (2.0 if cost.busy_s > 1e-5 else 1.0))

    slow = gs.simulate("gpt-2", "l4", 2, 100, 1, cost=doubled_when_large, engine="reference")
    fast = gs.simulate("gpt-2", "l4", 2, 100, 1, cost="roofline", engine="reference")
    assert fast.ttft_s < slow.ttft_s < 2.0 * fast.ttft_s


@pytest.mark.parametrize(
    "number", [number if number < 3 else pytest.param(number, marks=pytest.mark.slow) for number in range(24)]
)
def test_formulas_of_random_deployments_give_what_the_passes_give(number: int) -> None:
    found = difference(scenarios(24, SEED)[number])
    assert found is None or found < 1e-12
