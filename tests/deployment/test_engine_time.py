"""What an engine's own work adds to the time to the first token: a cause of its own, decided by the engine alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.inference import Inference, Requests
from graphsim.lora.profile import load_profile

MODEL, DEVICE = "qwen3-0.6b", "h100-sxm"
EXPERTS = "granite-3.0-3b-a800m"


def ttft_s(engine: object, tokens: object = 300, model: str = MODEL, batch: object = 1, **more: object) -> object:
    return gs.simulate(model, DEVICE, batch, tokens, 4, engine=engine, **more).ttft_s  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["reference", "peft"])
def test_an_engine_whose_host_nobody_looked_at_adds_nothing(engine: str) -> None:
    estimate = gs.simulate(MODEL, DEVICE, 2, 300, 4, engine=engine)
    assert estimate.engine_time.total_s == 0
    assert estimate.ttft_s == pytest.approx(estimate.prefill.latency_s)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engine_time_is_a_cause_of_its_own_and_all_causes_add_up(engine: str) -> None:
    estimate = gs.simulate(EXPERTS, DEVICE, 2, 700, 4, engine=engine)
    spent = estimate.engine_time
    assert spent.request_s == pytest.approx(
        load_profile(engine).host.request_s + 700 * load_profile(engine).host.token_s
    )
    assert spent.launches_s > 0
    causes = gs.explain(estimate).causes("ttft_s")
    assert causes["engine_s"] == pytest.approx(spent.total_s)
    assert sum(causes.values()) == pytest.approx(estimate.ttft_s)
    assert gs.explain(estimate).causes("tpot_s")["engine_s"] == 0, "decode steps are captured"
    assert estimate.to_dict()["engine_time"]["request_s"] == spent.request_s


def test_the_engine_alone_decides() -> None:
    times = {engine: ttft_s(engine, model=EXPERTS) for engine in ("vllm", "trtllm", "sglang")}
    assert times["vllm"] < times["trtllm"] < times["sglang"], "in the order of what a layer of experts takes"  # type: ignore[operator]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("parallelism", [gs.Parallelism(tp=2), gs.Parallelism(pp=2), gs.Parallelism(dp=2)])
def test_formulas_and_passes_give_the_same(engine: str, parallelism: gs.Parallelism) -> None:
    deployment = gs.Deployment(EXPERTS, DEVICE, engine=engine, parallelism=parallelism)
    inference = Inference(deployment=deployment, requests=Requests(batch=4, input_tokens=300, output_tokens=4))
    assert gs.simulate(deployment, batch=4, input_tokens=300, output_tokens=4).ttft_s == pytest.approx(
        inference.ttft_s()
    )


def test_scenarios_of_an_array_are_those_of_single_numbers() -> None:
    tokens = np.array([100.0, 512.0, 513.0, 9000.0])
    together = ttft_s("vllm", tokens, batch=np.array([1.0, 1.0, 2.0, 3.0]))
    alone = [ttft_s("vllm", each, batch=batch) for each, batch in zip(tokens, (1, 1, 2, 3), strict=True)]
    assert together == pytest.approx(alone)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_more_to_do_never_takes_less(engine: str) -> None:
    tokens = np.unique(np.geomspace(1, 40_000, 300).astype(int)).astype(float)
    assert np.all(np.diff(np.asarray(ttft_s(engine, tokens))) > 0), "not where graphs or chunks end either"


def test_what_a_graph_holds_waits_less_for_the_host() -> None:
    vllm = load_profile("vllm")
    without = replace(vllm, host=replace(vllm.host, captured_prompt_tokens=0.0))
    assert ttft_s(vllm, 512) < ttft_s(without, 512)  # type: ignore[operator]
    assert ttft_s(vllm, 513) == ttft_s(without, 513)


def test_chunks_of_a_long_prompt_are_launched_one_after_another() -> None:
    """With hosts far slower than kernels, the time is that of the launches, of as many steps as there are chunks."""
    vllm = load_profile("vllm")
    slow = replace(vllm, host=replace(vllm.host, launch_s=0.01, request_s=0.0, token_s=0.0))
    one, three = (gs.simulate(MODEL, DEVICE, 1, tokens, 2, engine=slow) for tokens in (8000, 24_000))
    assert three.engine_time.launches_s == pytest.approx(3 * one.engine_time.launches_s, rel=0.05)


def test_a_compiled_step_has_its_launches_and_no_way_of_a_request() -> None:
    deployment = gs.Deployment(EXPERTS, DEVICE, engine="vllm")
    estimate = gs.simulate(deployment, batch=1, input_tokens=700, output_tokens=4)
    step = gs.compile_step(deployment)
    assert step(prompt_tokens=700) == pytest.approx(estimate.ttft_s - estimate.engine_time.request_s)
    idle = replace(load_profile("vllm"), host=load_profile("reference").host)
    without = gs.compile_step(gs.Deployment(EXPERTS, DEVICE, engine=idle))
    assert step(generating=1, cache_rows=701) == pytest.approx(without(generating=1, cache_rows=701))
    assert step(prompt_tokens=700) > without(prompt_tokens=700)


def test_where_launches_are_nodes_they_are_not_counted_twice() -> None:
    peft = load_profile("peft")
    both = replace(peft, host=load_profile("vllm").host)
    spent = gs.simulate(MODEL, DEVICE, 1, 300, 2, engine=both).engine_time
    assert spent.launches_s == 0 and spent.request_s > 0


def test_stages_of_a_pipeline_start_their_kernels_side_by_side() -> None:
    vllm = load_profile("vllm")
    slow = replace(vllm, host=replace(vllm.host, launch_s=0.01, expert_layer_s=0.0))
    one, two = (
        gs.simulate(MODEL, DEVICE, 4, 700, 2, engine=slow, parallelism=gs.Parallelism(pp=pp)).engine_time.launches_s
        for pp in (1, 2)
    )
    assert two == pytest.approx(1.5 * one, rel=0.1), "two micro-batches through two stages: three of four parts in turn"
