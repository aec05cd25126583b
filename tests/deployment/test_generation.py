"""Generation time against a plain loop over every token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.deployment.generation import sum_steps, sum_steps_many

QUICK = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate], max_examples=25)


def by_hand(model: str, batch: int, first: int, steps: int, **asked: object) -> float:
    """The longest path of each decode step's own graph, added up."""
    cost = asked.pop("cost")
    total = 0.0
    for context in range(first, first + steps):
        graph = gs.build_graph(model, "decode", batch, context_tokens=context, **asked)  # type: ignore[arg-type]
        total += float(gs.critical_path(gs.annotate(graph, "h100-sxm", cost)).latency_s)
    return total


CASES = {
    "plain": ("llama-3.2-1b", {"batch": 3, "input_tokens": 50, "output_tokens": 40}, {}),
    "across the window": ("gemma-2-9b", {"batch": 1, "input_tokens": 4080, "output_tokens": 40}, {}),
    "adapter on two devices": (
        "llama-3.1-8b",
        {"batch": 8, "input_tokens": 1000, "output_tokens": 25},
        {"lora": gs.LoraConfig(rank=16), "parallelism": gs.Parallelism(tp=2)},
    ),
    "one output token": ("gpt-2", {"batch": 2, "input_tokens": 30, "output_tokens": 1}, {}),
}


@pytest.mark.parametrize("cost", ["roofline", None])
@pytest.mark.parametrize("case", CASES)
def test_generation_is_the_sum_of_its_steps(case: str, cost: str | None) -> None:
    """output_tokens - 1 steps, the first behind input_tokens; where there is one token only, tpot is that of a next."""
    model, request, deployed = CASES[case]
    steps = max(request["output_tokens"] - 1, 1)
    expected = by_hand(model, request["batch"], request["input_tokens"], steps, cost=cost, **deployed)
    one = gs.simulate(model, "h100-sxm", cost=cost, **request, **deployed, engine="reference")
    assert one.tpot_s * steps == pytest.approx(expected, rel=1e-9)
    extra = expected if request["output_tokens"] > 1 else 0.0
    assert one.latency_s == pytest.approx(one.ttft_s + extra, rel=1e-9)
    many = gs.simulate(
        model, "h100-sxm", cost=cost, **{k: [v, v] for k, v in request.items()}, **deployed, engine="reference"
    )
    assert many.tpot_s * steps == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 5, 8])
def test_through_a_pipeline_each_token_takes_the_way_or_the_slowest_stage(batch: int) -> None:
    """Per step: the larger of one micro-batch's way through both stages and the slower stage's work on all."""
    pipelined = gs.Parallelism(pp=2)
    found = gs.simulate("llama-3.2-1b", "h100-sxm", batch, 100, 9, pipelined, cost="roofline", engine="reference")
    total = 0.0
    for context in range(100, 108):
        large, small = -(-batch // 2), batch // 2
        shares = [s for s in (large, small) if s]
        way = gs.annotate(
            gs.build_graph("llama-3.2-1b", "decode", large, context_tokens=context), "h100-sxm", "roofline"
        )
        ways, stages = 0.0, np.zeros(2)
        for share in shares:
            graph = gs.build_graph(
                "llama-3.2-1b",
                "decode",
                share,
                context_tokens=context,
                parallelism=gs.Parallelism(pp=2, micro_batches=1),
            )
            priced = gs.annotate(graph, "h100-sxm", "roofline")
            for name, data in priced.nodes(data=True):
                number = int(name.split(".")[1].removeprefix("stage"))
                if data["op"].op_type is gs.OpType.REPEAT:
                    body = sum(d["latency_s"] for _, d in data["op"].body.nodes(data=True))
                    stages[number] += data["op"].times * body
                elif not name.endswith("send"):
                    stages[number] += data["latency_s"]
            if share == large:
                ways = float(gs.critical_path(priced).latency_s)
        assert ways > float(gs.critical_path(way).latency_s), "handing on takes time"
        total += max(ways, float(stages.max()))
    assert found.tpot_s * 8 == pytest.approx(total, rel=1e-9)


kinked = st.lists(st.tuples(st.integers(1, 5000), st.floats(0.0, 3.0)), min_size=1, max_size=4)


@QUICK
@given(kinks=kinked, first=st.integers(1, 3000), count=st.integers(1, 4000))
def test_piecewise_linear_times_are_summed_exactly(kinks: list, first: int, count: int) -> None:
    def step(context: np.ndarray, rows: object = None) -> np.ndarray:
        return 1.0 + 1e-3 * context + sum(slope * np.maximum(context - at, 0.0) for at, slope in kinks)

    expected = float(np.sum(step(np.arange(first, first + count, dtype=float))))
    assert sum_steps(step, first, count) == pytest.approx(expected, rel=1e-12)
    firsts, counts = np.array([first, 17.0, 5.0]), np.array([count, 1.0, 0.0])
    found = sum_steps_many(step, firsts, counts)
    assert found == pytest.approx([expected, float(step(np.array(17.0))), 0.0], rel=1e-7)


def test_a_long_generation_needs_no_graph_per_token() -> None:
    calls = []

    def step(context: np.ndarray, rows: object = None) -> np.ndarray:
        calls.append(np.size(context))
        return 1.0 + context + np.maximum(context - 77_777, 0.0)

    sum_steps_many(step, np.full(100, 5.0), np.full(100, 1e6))
    assert len(calls) < 60
