"""What a warm call of `simulate` costs besides its formulas, in calls of functions, which no other load disturbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.arguments import inference_of
from graphsim.lora.profile import load_profile
from tests.benchmarks import measure

ASKED = {"batch": 8, "input_tokens": 777, "output_tokens": 99}


DEPLOYMENTS: dict[str, Callable[[], gs.Deployment]] = {
    "adapter": lambda: gs.Deployment("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16)),
    "experts": lambda: gs.Deployment(
        "mixtral-8x7b", "b200-sxm", parallelism=gs.Parallelism(tp=2), engine="vllm-0.11"
    ),
    "roofline": lambda: gs.Deployment(
        "llama-2-7b", "a100-sxm-80gb", lora=gs.LoraConfig(rank=16, rank_pattern={"q_proj": 8}), cost="roofline",
        engine="reference",
    ),
}  # fmt: skip


def warm_calls(call: Callable[[], object]) -> int:
    """Calls that a call makes when it was made before; formulas that are asked often are written out as functions."""
    for _ in range(35):
        call()
    return measure.calls(call)


@pytest.mark.parametrize("which", DEPLOYMENTS)
def test_a_warm_call_makes_few_calls_besides_those_of_its_formulas(which: str) -> None:
    deployment = DEPLOYMENTS[which]()
    inference = inference_of(deployment, **ASKED)

    def formulas() -> object:
        found = formulas_of(inference)
        assert found is not None
        return found.times_s(numbers_of(inference))

    assert warm_calls(lambda: gs.simulate(deployment, **ASKED)) < 4 * warm_calls(formulas)


def test_a_warm_call_does_not_look_through_its_deployment() -> None:
    """A device with a thousand more sources, and an adapter with as many notes, are looked through once."""
    device = gs.load_hardware("h100-sxm")
    longer = replace(device, sources={**device.sources, **{f"note.{i}": "a source" for i in range(1000)}})
    noted = gs.LoraConfig(notes=tuple(f"note {i}" for i in range(1000)))
    short = gs.Deployment("llama-3.1-8b", device, lora=gs.LoraConfig())
    long = gs.Deployment("llama-3.1-8b", longer, lora=noted)
    first = measure.calls(lambda: gs.simulate(long, **ASKED))
    again, plain = (warm_calls(lambda d=d: gs.simulate(d, **ASKED)) for d in (long, short))
    assert first > again + 1000
    assert again < plain + 50


def test_names_cost_a_warm_call_no_more_than_looking_them_up() -> None:
    named: tuple[Any, ...] = "llama-3.1-8b", "h100-sxm"
    lora = gs.LoraConfig(rank=16)
    deployment = gs.Deployment(*named, lora=lora, engine="vllm-0.11")

    def look_up() -> object:
        return gs.load_model(named[0]), gs.load_hardware(named[1]), load_profile("vllm-0.11")

    by_name = warm_calls(lambda: gs.simulate(*named, lora=lora, engine="vllm-0.11", **ASKED))
    assert by_name - warm_calls(lambda: gs.simulate(deployment, **ASKED)) < 1.5 * warm_calls(look_up)
