"""The causes of times as recorded formulas: they add up to the times, and are those of an explanation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.causes import CAUSES
from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.program import Program
from graphsim.symbolic.slopes import slopes

DEPLOYMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adapter": ("llama-3.1-8b", "h100-sxm", {"lora": gs.LoraConfig(rank=16), "engine": "vllm"}),
    "reference": ("llama-2-7b", "a100-sxm-80gb", {"lora": gs.LoraConfig(rank=16), "engine": "reference"}),
    "parallel": ("llama-3.1-70b", "h100-sxm", {"parallelism": gs.Parallelism(tp=4), "engine": "sglang"}),
    "pipeline": ("llama-3.1-8b", "h100-sxm", {"parallelism": gs.Parallelism(pp=2), "engine": "vllm"}),
    "experts": ("mixtral-8x7b", "b200-sxm", {"parallelism": gs.Parallelism(tp=2), "engine": "vllm"}),
}


def inference(which: str, **requests: Any) -> Inference:
    model, device, described = DEPLOYMENTS[which]
    asked = {"batch": 8, "input_tokens": 700, "output_tokens": 50} | requests
    return Inference(deployment=gs.Deployment(model, device, **described), requests=Requests(**asked))


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("which", DEPLOYMENTS)
def test_causes_are_those_of_an_explanation_and_add_up(which: str, cost: str) -> None:
    DEPLOYMENTS[which][2]["cost"] = cost
    asked = inference(which)
    formulas, inputs = formulas_of(asked), numbers_of(asked)
    assert formulas is not None
    found = formulas.causes_s(inputs)
    step_s = asked.step_s(float(asked.mean_context))
    for quantity, total in (("ttft_s", asked.ttft_s()), ("step_s", step_s)):
        told = sum(seconds for key, seconds in found.items() if key.quantity == quantity)
        assert told == pytest.approx(total, rel=1e-12)
    model, device, described = DEPLOYMENTS[which]
    explained = gs.explain(gs.simulate(model, device, 8, 700, 50, **described))
    for cause in CAUSES:
        mine = sum(s for key, s in found.items() if key.quantity == "ttft_s" and key.cause == cause)
        assert mine == pytest.approx(explained.causes("ttft_s")[cause], rel=1e-9, abs=1e-12 * asked.ttft_s()), cause


def test_causes_of_many_scenarios_are_those_of_each() -> None:
    sizes = {"batch": np.array([1, 8, 64]), "input_tokens": np.array([3000, 20, 700])}
    together = inference("adapter", **sizes)
    formulas = formulas_of(together)
    assert formulas is not None
    found = formulas.causes_s(numbers_of(together))
    for at in range(3):
        alone = inference("adapter", **{name: values[at] for name, values in sizes.items()})
        own = formulas.causes_s(numbers_of(alone))
        rounding_s = 1e-14 * alone.ttft_s()
        mine = {key: np.broadcast_to(seconds, 3)[at] for key, seconds in found.items()}
        assert mine == pytest.approx(own, rel=1e-12, abs=rounding_s)


def test_a_step_is_explained_behind_any_context() -> None:
    asked = inference("adapter")
    formulas, inputs = formulas_of(asked), numbers_of(asked)
    assert formulas is not None
    near, far = (formulas.causes_s({**inputs, "context": context}) for context in (10.0, 1e5))
    steps = [key for key in near if key.quantity == "step_s"]
    rounding_s = 1e-14 * sum(far[key] for key in steps)
    grown = {key.op_type for key in steps if far[key] > 2.0 * abs(near[key]) > 0.0 and far[key] > rounding_s}
    assert grown == {"ATTENTION"}


def test_slopes_say_which_side_of_a_maximum_counts() -> None:
    tape = Tape()
    x, y, z = map(tape.variable, "xyz")
    found = slopes(2.0 * np.maximum(x + 3.0 * y, z) + y)
    at = {"x": 1.0, "y": 2.0, "z": 5.0}
    assert Program([found[name] for name in "xyz"])(at) == [2.0, 7.0, 0.0]
    assert Program([found[name] for name in "xyz"])({**at, "z": 9.0}) == [0.0, 1.0, 2.0]
    with pytest.raises(NotRecordable, match="slopes of sqrt"):
        slopes(np.sqrt(x))
