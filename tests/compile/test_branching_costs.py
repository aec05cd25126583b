"""A user's cost function may ask for actual numbers: every verb gives what the passes give for each step alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.reasons import why_not_recorded
from graphsim.cost.base import Cost
from graphsim.cost.choose import choose_cost
from graphsim.cost.roofline import roofline
from graphsim.deployment.inference import Inference, Requests
from graphsim.ops import Attention, Gemm

MODEL, DEVICE = "gpt-2", "l4"
SIZES = {1.0: 2.0, 100.0: 3.0}


def scaled(op: Any, hardware: Any, factor: Any) -> Cost:
    cost = roofline(op, hardware)
    return replace(cost, busy_s=cost.busy_s * factor)


def by_max(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if np.max(roofline(op, hardware).busy_s) > 1e-5 else 1.0)


def by_any(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if isinstance(op, Attention) and np.any(op.kv_tokens > 330) else 1.0)


def by_all(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if isinstance(op, Attention) and np.all(op.pairs % 2 == 0) else 1.0)


def by_branch(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if roofline(op, hardware).busy_s > 1e-5 else 1.0)


def by_pythons_max(op: Any, hardware: Any) -> Cost:
    return replace(roofline(op, hardware), busy_s=max(roofline(op, hardware).busy_s, 4e-6))


def by_equality(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if isinstance(op, Gemm) and np.array_equal(op.m, 3.0) else 1.0)


def by_maths(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 1.0 + math.log1p(op.pairs) / 100.0 if isinstance(op, Attention) else 1.0)


def by_table(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, SIZES.get(op.m, 1.5) if isinstance(op, Gemm) else 1.0)


def by_attribute(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 1.0 + float(f"{op.m:g}") / 50.0 if isinstance(op, Gemm) else 1.0)


def by_calibrated(op: Any, hardware: Any) -> Cost:
    cost = choose_cost("calibrated", hardware)[0](op, hardware)
    return replace(cost, busy_s=cost.busy_s * (2.0 if np.max(cost.busy_s) > 1e-5 else 1.0))


def by_knots(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, np.interp(op.pairs, [300.0, 1000.0], [1.0, 2.0]) if isinstance(op, Attention) else 1.0)


def by_swallowing(op: Any, hardware: Any) -> Cost:
    try:
        factor = 2.0 if roofline(op, hardware).busy_s > 1e-5 else 1.0
    except Exception:
        factor = 1.0
    return scaled(op, hardware, factor)


def by_text(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, 2.0 if isinstance(op, Gemm) and str(op.m) == "3.0" else 1.0)


def by_type(op: Any, hardware: Any) -> Cost:
    busy_s = roofline(op, hardware).busy_s
    return scaled(op, hardware, 2.0 if isinstance(busy_s, float) and busy_s > 1e-5 else 1.0)


def by_swallowed_text(op: Any, hardware: Any) -> Cost:
    try:
        return by_text(op, hardware)
    except Exception:
        return roofline(op, hardware)


ASKING: list[Callable[..., Cost]] = [
    by_max, by_any, by_all, by_branch, by_pythons_max, by_equality, by_maths, by_table, by_attribute, by_calibrated,
    by_swallowing, by_text, by_swallowed_text,
]  # fmt: skip
COSTS = [*ASKING, by_knots, by_type]


def step_s(cost: Callable[..., Cost], phase: str, batch: float, tokens: float, lora: gs.LoraConfig | None) -> float:
    """One step through the passes, as numbers."""
    graph = gs.build_graph(MODEL, phase, batch, tokens, lora=lora)
    return float(gs.critical_path(gs.annotate(graph, DEVICE, cost)).latency_s)


@pytest.mark.parametrize(
    "lora", [pytest.param(None, marks=pytest.mark.slow), gs.LoraConfig(rank=8)], ids=["base", "adapter"]
)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.slow
def test_every_verb_gives_what_the_passes_give(cost: Callable[..., Cost], lora: gs.LoraConfig | None) -> None:
    batches, tokens, outputs = [1, 3, 50], 326, 9
    many = gs.simulate(
        MODEL, DEVICE, np.array(batches, float), tokens, outputs, lora=lora, cost=cost, engine="reference"
    )
    step = gs.compile_step(MODEL, DEVICE, lora=lora, cost=cost, engine="reference")
    for i, batch in enumerate(batches):
        prompt = step_s(cost, "prefill", batch, tokens, lora)
        generated = [step_s(cost, "decode", batch, tokens + n, lora) for n in range(outputs - 1)]
        one = gs.simulate(MODEL, DEVICE, batch, tokens, outputs, lora=lora, cost=cost, engine="reference")
        for ttft_s, tpot_s in (
            (one.ttft_s, one.tpot_s),
            (np.ravel(many.ttft_s)[i], np.ravel(many.tpot_s)[i]),
        ):
            assert ttft_s == pytest.approx(prompt, rel=1e-12)
            assert tpot_s == pytest.approx(np.mean(generated), rel=1e-9)
        assert step(tokens, prefill_sequences=batch) == pytest.approx(prompt, rel=1e-12)
        contexts = tokens + np.arange(outputs - 1.0)
        assert step(decode_batch=float(batch), context=contexts) == pytest.approx(np.array(generated), rel=1e-12)


def inference_of(cost: Any) -> Inference:
    deployment = gs.Deployment(MODEL, DEVICE, lora=gs.LoraConfig(), cost=cost, engine="reference")
    return Inference(deployment=deployment, requests=Requests(batch=1, input_tokens=10, output_tokens=10))


@pytest.mark.parametrize("cost", ASKING)
def test_the_line_that_asked_is_named(cost: Callable[..., Cost]) -> None:
    found = why_not_recorded(inference_of(cost))
    assert found and all(sentence.startswith("test_branching_costs.py:") for sentence in found), found


@pytest.mark.parametrize("cost", ["roofline", "calibrated", by_knots])
def test_what_is_recorded_has_nothing_to_say(cost: Any) -> None:
    assert why_not_recorded(inference_of(cost)) == []


def test_what_takes_no_notice_of_a_symbol_is_told() -> None:
    assert why_not_recorded(inference_of(by_type)) == ["a price of symbols is another one than that of numbers"]
