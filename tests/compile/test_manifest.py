"""The inputs of recorded formulas: all that they depend on, with the bounds that descriptions are checked against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.compile.formulas import Formulas
from graphsim.compile.manifest import Input
from graphsim.compile.symbols import numbers_of
from graphsim.cost.rates import rates_of
from graphsim.deployment.inference import Inference, Requests

LORA = gs.LoraConfig(rank=16, rank_pattern={"q_proj": 8}, active_adapters=3, adapter_share=0.5)
REQUESTS = {"batch": 8, "input_tokens": 512, "output_tokens": 64}


def inference(**described: Any) -> Inference:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm", **described)
    return Inference(deployment=deployment, requests=Requests(**REQUESTS))


def manifest(*, rates: bool = False, **described: Any) -> dict[str, Input]:
    return {one.name: one for one in Formulas(inference(**described), rates=rates).manifest}


def test_a_manifest_names_all_that_formulas_depend_on_with_what_was_asked() -> None:
    asked = inference(lora=LORA)
    formulas = Formulas(asked, rates=True)
    found = {one.name: one for one in formulas.manifest}
    assert set(formulas.fixed.inputs) <= set(found)
    assert set(found) <= {*numbers_of(asked), *rates_of(asked.hardware), "context"}
    values = {**numbers_of(asked), **rates_of(asked.hardware), "context": 512.0}
    assert {name: one.default for name, one in found.items()} == {name: values[name] for name in found}
    assert all(one.least <= one.default <= one.most for one in found.values())


def test_rates_are_inputs_where_they_were_asked_for() -> None:
    assert not any(name.startswith("device.") for name in manifest())
    found = manifest(rates=True)
    assert found["device.memory_bytes_per_s"].unit == "bytes/s"
    assert found["device.flops_per_s.bf16"].unit == "flop/s"
    assert found["device.memory_bytes_per_s"].default == gs.load_hardware("h100-sxm").memory_bytes_per_s


def test_bounds_are_those_that_descriptions_are_checked_against() -> None:
    for one in manifest(lora=LORA).values():
        if one.name == "context":
            continue
        step = 1.0 if one.whole else 1e-3
        for value, allowed in (
            (one.least, True),
            (one.most, True),
            (one.least - step, False),
            (one.most + step, False),
        ):
            assert accepts(one.name, value) == allowed, (one.name, value)
        assert one.whole != accepts(one.name, one.least + 0.5), one.name


def accepts(name: str, value: float) -> bool:
    """Whether a description takes a value."""
    number: Any = int(value) if float(value).is_integer() else value
    try:
        if name in REQUESTS:
            Requests(**(REQUESTS | {name: number}))
        elif name == "dp":
            gs.Parallelism(dp=number)
        elif name.startswith("rank_pattern."):
            replace(LORA, rank_pattern={name.partition(".")[2]: number})
        else:
            replace(LORA, **{name: number})
    except gs.ConfigError as error:
        assert name.partition(".")[0] in str(error)
        return False
    return True


@pytest.mark.parametrize("mixed", [True, False])
def test_the_mean_of_mixed_ranks_need_not_be_whole(mixed: bool) -> None:
    adapter = gs.LoraConfig(mixed_ranks=[8, 15]) if mixed else gs.LoraConfig(rank=8)
    assert manifest(lora=adapter)["rank"].whole is not mixed


STEP = {"prompt_tokens": 600.0, "prompts": 3.0, "generating": 8.0, "cache_rows": 8000.0}
BEYOND = {
    "prompts": 601.0, "prompt_pairs": 500.0, "prompt_rows": 599.0, "prompts_ending": 3.5, "cache_rows": 7.0,
    "adapted_tokens": 609.0, "distinct_adapters": 609.0, "rank_rows": 16.5 * 304.0,
}  # fmt: skip
"""Sums that no sequences of this step can have."""


def test_the_arguments_of_a_step_are_its_inputs() -> None:
    adapter = replace(LORA, rank_pattern={})
    step = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=adapter, cost="roofline")
    inputs = {one.name: one for one in step.inputs}
    assert {one.name for one in inputs.values() if one.within} == set(BEYOND)
    usual = step(**STEP)
    for name, one in inputs.items():
        with pytest.raises(gs.ConfigError, match=f"{name} = -1.0 is not allowed"):
            step(**(STEP | {name: one.least - 1.0}))
        if not one.otherwise and name not in STEP:
            assert step(**(STEP | {name: one.default})) == pytest.approx(usual, rel=1e-12), name
    for name, value in BEYOND.items():
        with pytest.raises(gs.ConfigError) as refused:
            step(**(STEP | {name: value}))
        assert str(refused.value).endswith(f"expected {inputs[name].within}")
    follows = {
        "prompts_ending": 3.0, "prompt_pairs": 600.0 * 201.0 / 2.0, "prompt_rows": 600.0, "adapted_tokens": 304.0,
        "distinct_adapters": 3.0, "rank_rows": 16.0 * 304.0,
    }  # fmt: skip
    assert step(**STEP, **follows) == pytest.approx(usual, rel=1e-12)
    assert inputs["adapted_tokens"].otherwise == "0.5 times all tokens of the step"


def test_a_step_without_adapters_has_no_inputs_of_any() -> None:
    inputs = gs.compile_step("gpt-2", "l4", cost="roofline").inputs
    assert [one.name for one in inputs if "adapt" in one.name or "rank" in one.name] == []
