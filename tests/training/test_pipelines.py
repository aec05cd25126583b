"""Pipelines of whole training steps: schedules in their order, parts that add up, one track for each stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.ops import SendReceive
from graphsim.training.estimated import ComputedStep
from graphsim.training.part_times import hand_over, part_times
from graphsim.training.schedules import schedule_of
from graphsim.training.train import setup_of, train

MODEL, DEVICE, STAGES, MICRO_BATCHES = "llama-3.2-1b", "h100-sxm", 4, 8
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe")


def piped(schedule: str = "1f1b", *, accumulate: Any = MICRO_BATCHES, **further: Any) -> Any:
    degrees = gs.Parallelism(
        pp=STAGES, schedule=schedule, virtual_stages=2 if schedule == "interleaved" else 1, **further.pop("degrees", {})
    )
    asked = {"method": "full", "recipe": "megatron-bridge", "seq_len": 2048, "accumulate": accumulate}
    return train(MODEL, DEVICE, parallelism=degrees, **{**asked, **further})


@pytest.fixture(scope="module")
def steps() -> dict[str, Any]:
    return {name: piped(name) for name in SCHEDULES}


def test_better_schedules_take_less_time_and_the_parts_of_each_add_up(steps):
    order = [float(steps[name].step_s) for name in ("gpipe", "interleaved", "zb-v")]
    assert order == sorted(order, reverse=True)
    assert (
        float(steps["zb-h1"].step_s)
        < float(steps["1f1b"].step_s)
        == pytest.approx(float(steps["gpipe"].step_s), rel=0.05)
    )
    for step in steps.values():
        assert sum(map(float, step.parts_s.values())) == pytest.approx(float(step.step_s))
        assert float(step.parts_s["bubble"]) > 0


def test_what_is_done_does_not_depend_on_the_order_in_which_it_is(steps):
    for name in ("forward", "backward", "optimizer"):
        assert len({round(float(step.parts_s[name]), 12) for step in steps.values()}) == 1


def test_all_micro_batches_at_once_take_more_memory_than_as_many_as_there_are_stages(steps):
    held = {name: float(step.memory.activations_bytes) for name, step in steps.items()}
    assert held["gpipe"] > held["interleaved"] > held["1f1b"]


def test_a_frozen_base_gains_little_from_putting_weight_gradients_off():
    gained = {}
    for method in ("full", "lora"):
        one, zero = (float(piped(name, method=method).step_s) for name in ("1f1b", "zb-h1"))
        gained[method] = 1.0 - zero / one
    assert gained["full"] > 2.0 * gained["lora"]


def test_micro_batches_may_differ_by_scenario():
    lengths, counts = [2048, 1024, 2048], [8, 8, 16]
    many = piped(seq_len=lengths, accumulate=counts)
    for i, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        one = piped(seq_len=length, accumulate=count)
        assert many.step_s[i] == pytest.approx(float(one.step_s))
        assert np.broadcast_to(many.memory.total_bytes, 3)[i] == pytest.approx(float(one.memory.total_bytes))


@pytest.mark.parametrize("name, virtual", [("1f1b", 1), ("interleaved", 2), ("zb-v", 1), ("dualpipe", 1)])
def test_parts_of_the_model_take_as_long_as_its_stages_and_the_head_is_in_the_last_one(name, virtual):
    degrees = gs.Parallelism(pp=STAGES)
    setup = setup_of(MODEL, DEVICE, method="full", recipe="megatron-bridge", parallelism=degrees)
    stages = ComputedStep(setup).numbers
    parts = part_times(schedule_of(name, STAGES, 8, virtual), stages)
    whole = sum(float(stage.times.total_s) for stage in stages)
    assert sum(map(float, (*parts.forward_s, *parts.backward_s, *parts.weight_s))) == pytest.approx(whole)
    assert max(parts.forward_s) == parts.forward_s[-1] > 1.2 * parts.forward_s[1]


def test_neighbouring_stages_have_all_other_ranks_between_them():
    degrees = gs.Parallelism(tp=2, sp=2, cp=2, dp=2, pp=STAGES)
    setup = setup_of(MODEL, DEVICE, method="full", recipe="megatron-bridge", parallelism=degrees)
    op = hand_over(ComputedStep(setup).numbers, setup)
    assert isinstance(op, SendReceive) and (op.group, op.stride) == (4, 8)
    assert float(op.payload_bytes) == 2048 / 2 / 2 * 2048 * 2  # tokens over cp and sp, hidden, bytes


def test_a_pipeline_is_a_graph_with_a_track_for_each_stage(steps):
    estimate = steps["zb-h1"]
    graph = estimate.pipeline
    assert float(graph.graph["latency_s"]) == pytest.approx(float(estimate.slots.makespan_s))
    assert sum(name.endswith(".wgrad") for name in graph) == STAGES * MICRO_BATCHES
    names = {e["args"]["name"] for e in gs.to_trace(estimate)["traceEvents"] if e["name"] == "process_name"}
    assert names == {"device", *(f"stage{i}" for i in range(STAGES))}


def test_a_step_without_stages_has_no_pipeline():
    with pytest.raises(gs.ConfigError, match="train with parallelism.pp > 1"):
        train(MODEL, DEVICE).pipeline  # noqa: B018
