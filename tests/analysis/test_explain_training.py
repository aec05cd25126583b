"""The parts of a training step add up to it, and findings are said of what is there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import networkx as nx
import pytest

import graphsim as gs
from graphsim.cost.base import Cost
from graphsim.cost.roofline import roofline
from graphsim.ops import ModuleSteps, Op, Repeat
from tests.training.steps import DEVICE, MODEL, lora_step


def test_the_parts_add_up_to_the_step():
    found = gs.explain(lora_step())
    assert list(found.totals) == ["step_s"]
    assert math.fsum(part.total_s for part in found.parts) == pytest.approx(float(lora_step().step_s))
    assert sum(found.causes("step_s").values()) == pytest.approx(found.totals["step_s"])
    assert found.to_frame()["total_s"].sum() == pytest.approx(found.totals["step_s"])


def test_work_on_the_critical_path_counts_every_micro_batch():
    """Four of them: flops of the forward products are those of the whole step."""
    parts = [part for part in gs.explain(lora_step()).parts if part.part.startswith("forward")]
    matrix = math.fsum(part.flops for part in parts if part.op_type in ("GEMM", "ATTENTION"))
    assert matrix == pytest.approx(lora_step().flops["forward"], rel=0.05)


@pytest.mark.parametrize("device", [DEVICE, "rtx-3090"])
def test_what_the_datasheet_says_of_a_kernel_is_its_own_work_however_slow_it_is(device: str) -> None:
    hardware = gs.load_hardware(device)
    priced = list(nodes(gs.train(MODEL, device, batch=2, seq_len=512).graph))
    assert any(isinstance(op, ModuleSteps) for op, _ in priced)
    for op, cost in priced:
        own = roofline(op, hardware)
        assert cost.memory_s == pytest.approx(own.memory_s)
        assert cost.compute_s == pytest.approx(own.compute_s) or isinstance(op, ModuleSteps)


def nodes(graph: nx.DiGraph) -> Iterator[tuple[Op, Cost]]:
    for _, data in graph.nodes(data=True):
        if isinstance(data["op"], Repeat):
            yield from nodes(data["op"].body)
        else:
            yield data["op"], data["cost"]


def test_findings_name_what_dominates_the_adapters_part_and_the_least_certain_family():
    told = "\n".join(gs.explain(lora_step()).findings)
    for said in ("busy the longest: ", "the adapter's own operations take ", "times as long as the forward pass",
                 "kernels are of the family '", "memory is fullest at: head"):  # fmt: skip
        assert said in told
    full = gs.train(MODEL, DEVICE, seq_len=128, method="full")
    assert "adapter" not in "\n".join(gs.explain(full).findings)


def test_two_steps_are_compared_and_measured_ones_too():
    full = gs.train(MODEL, DEVICE, batch=2, seq_len=512, accumulate=4, method="full")
    found = gs.explain(full, lora_step())
    assert found.totals["step_s"] == pytest.approx(float(lora_step().step_s - full.step_s))
    told = gs.explain(lora_step(), measured={"step_s": 10.0}).findings
    assert any("measured 10 s" in text for text in told)
    with pytest.raises(gs.ConfigError, match="'ttft_s' is not known; allowed: step_s"):
        gs.explain(lora_step(), measured={"ttft_s": 10.0})
    with pytest.raises(gs.ConfigError, match="explain takes one TrainEstimate"):
        gs.explain(lora_step(), gs.simulate(MODEL, DEVICE))


def test_intervals_hold_the_estimate_and_widen_with_the_coverage():
    step = lora_step()
    narrow, wide = step.interval(coverage=0.5), step.interval(coverage=0.95)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    low, high = step.interval("tokens_per_s")
    assert low < float(step.tokens_per_s) * 1.02 and high > float(step.tokens_per_s) * 0.98
    assert sum(step.uncertainty.widths(0.8).values()) > 0
    with pytest.raises(gs.ConfigError, match="interval of 'memory' is not known"):
        step.interval("memory")
    roofline = gs.train(MODEL, DEVICE, seq_len=64, cost="roofline")
    with pytest.raises(gs.ConfigError, match="no residuals are recorded for times of the cost model 'roofline'"):
        roofline.interval()
