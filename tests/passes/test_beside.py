"""Shared experts beside an exchange hide as much of it as they last, and move nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import validate
from graphsim.lora.fusions import EngineFusions
from graphsim.lora.profile import load_profile
from graphsim.ops import Repeat
from tests.passes.exchanging import EP, MODEL, deployment, simulated

SHARED = ("gate_up_proj", "act_mul", "down_proj")
APART = {"shared_experts": {"any": "apart"}}
EXCHANGE = {"vllm-deepep": "combine_tokens.all_to_all", "sglang-deepep": "gather_tokens.all_to_all"}


@pytest.mark.parametrize("engine", EXCHANGE)
def test_each_layer_saves_the_shorter_of_the_shared_experts_and_the_exchange_beside_them(engine: str) -> None:
    behind = {"base": engine, "name": "behind", "shared_experts": "behind", "fusions": APART}
    for phase in ("prefill", "decode"):
        beside, apart = (getattr(simulated(one), phase) for one in (engine, behind))
        repeat = next(op for _, op in apart.graph.nodes(data="op") if isinstance(op, Repeat))
        taken = {name: float(node["latency_s"]) for name, node in repeat.body.nodes(data=True)}
        shorter = min(sum(taken[name] for name in SHARED), taken[EXCHANGE[engine]])
        assert shorter > 0.0
        saved = float(apart.latency_s) - float(beside.latency_s)
        assert saved == pytest.approx(repeat.times * shorter, rel=1e-6)


@pytest.mark.parametrize("engine", EXCHANGE)
@pytest.mark.parametrize("lora", [None, gs.LoraConfig(rank=8, target_modules="all-linear")])
def test_what_is_launched_beside_is_what_needs_nothing_of_the_exchange(engine: str, lora: gs.LoraConfig | None) -> None:
    graph = gs.build_graph(deployment(engine, lora=lora), "decode", batch=EP * 8, input_tokens=64)
    validate(graph, "lowered")
    body = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
    order = list(body)
    here = order.index(EXCHANGE[engine])
    moved = [name for name in order[here + 1 :] if name.partition(".")[0] in SHARED]
    assert order[here + 1 : here + 1 + len(moved)] == moved
    assert [name for name in moved if name in SHARED] == list(SHARED)


@pytest.mark.parametrize(
    "described",
    [
        {"model": "qwen3-30b-a3b"},
        {"parallelism": gs.Parallelism(tp=4, ep=4)},
        {"model": "llama-3.2-1b", "parallelism": gs.Parallelism(tp=2)},
    ],
)
def test_without_shared_experts_or_an_exchange_every_launch_stays(described: dict[str, Any]) -> None:
    engines = [replace(load_profile(name), fusions=EngineFusions()) for name in ("vllm-deepep", "sglang-deepep")]
    texts = [
        gs.to_text(gs.build_graph(deployment(engine, **({"model": MODEL} | described)), batch=EP, input_tokens=64))
        for engine in (*engines, replace(engines[0], shared_experts="behind"))
    ]
    assert texts[0] == texts[1] == texts[2]
