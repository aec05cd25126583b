"""What an engine fuses shows in the lowered graph, and keeps the work, the messages and the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.memory import weight_bytes
from graphsim.graph import validate, walk
from graphsim.lora.fusions import EngineFusions
from graphsim.lora.profile import load_profile
from graphsim.models.phase import decode, prefill
from graphsim.ops import Add, AddNorm, AllReduce, AllReduceNorm, ExpertGemm, Gemm, KvCache, Norm, Op, Rope, Route
from graphsim.ops.base import SIDE
from graphsim.ops.fused_blocks import RopeCache, RoutedGather

DENSE, LATENT, DELTA, SPARSE = "llama-3.1-8b", "deepseek-v3", "qwen3.5-35b-a3b", "gpt-oss-20b"
PLAIN = load_profile("reference")
LIMITS = (("any", 8.0, 1e6),)
PHASES = [decode(4.0, 1000.0), prefill(2.0, 300.0)]


def graph_of(
    model: str, phase: Any, tp: int = 2, hardware: str | None = None, lora: Any = None, **flags: Any
) -> nx.DiGraph:
    engine = replace(PLAIN, fusions=EngineFusions(**flags))
    deployment = gs.Deployment(model, hardware, parallelism=gs.Parallelism(tp=tp), engine=engine, lora=lora)
    (graph,) = deployment.stages(phase)
    validate(graph, "lowered")
    return graph


def count(graph: nx.DiGraph, kind: type[Op]) -> int:
    return sum(times for _, op, times in walk(graph) if type(op) is kind)


def weights(graph: nx.DiGraph) -> float:
    return float(sum(weight_bytes(op) * times for _, op, times in walk(graph)))


FLAGS = {
    "residual_norms": (DENSE, {"residual_norms": True}),
    "all_reduce_norms": (DENSE, {"residual_norms": True, "all_reduce_norms": LIMITS}),
    "latent_projections": (LATENT, {"latent_projections": True}),
    "delta_projections": (DELTA, {"delta_projections": True}),
    "rope_caches": (LATENT, {"rope_caches": ("any",)}),
    "expert_all_reduce": (DELTA, {"expert_all_reduce": True}),
    "routing_in_experts": (LATENT, {"routing_in_experts": ("any",)}),
    "shared_experts": (LATENT, {"shared_experts": (("any", "kernel"),)}),
}


@pytest.mark.parametrize("phase", PHASES, ids=["decode", "prefill"])
@pytest.mark.parametrize("name", FLAGS)
def test_fewer_kernels_do_the_same_work(name: str, phase: Any) -> None:
    """Products, messages (but for one all-reduce less) and weights are the same; bytes are no more, kernels fewer."""
    model, flags = FLAGS[name]
    plain, fused = graph_of(model, phase), graph_of(model, phase, **flags)
    before, after = gs.total_work(plain), gs.total_work(fused)
    assert after.flops == pytest.approx(before.flops)
    assert after.vector_flops == pytest.approx(before.vector_flops)
    assert after.message_bytes <= before.message_bytes * (1 + 1e-12)
    assert name == "expert_all_reduce" or after.message_bytes == pytest.approx(before.message_bytes)
    assert after.memory_bytes <= before.memory_bytes * (1 + 1e-12)
    assert weights(fused) == pytest.approx(weights(plain), rel=1e-12)
    assert sum(times for _, op, times in walk(fused) if op.launched) < sum(t for _, op, t in walk(plain) if op.launched)


def test_each_norm_takes_the_sum_ahead_of_it() -> None:
    plain, fused = graph_of(DENSE, PHASES[0]), graph_of(DENSE, PHASES[0], residual_norms=True)
    layers = 32
    assert (count(plain, Add), count(plain, Norm)) == (2 * layers, 2 * layers + 1)
    assert count(fused, Add) == 0 and count(fused, Norm) == 1, "the first layer's has no sum ahead of it"
    assert count(fused, AddNorm) == 2 * layers


def test_norms_with_a_shift_stand_alone() -> None:
    """LayerNorms have no such kernel."""
    plain, fused = (graph_of("gpt-2", PHASES[0], 1, residual_norms=flag) for flag in (False, True))
    assert list(fused) == list(plain) and count(fused, AddNorm) == 0


def test_norms_run_within_all_reduces_up_to_a_message() -> None:
    fused = graph_of(DENSE, PHASES[0], residual_norms=True, all_reduce_norms=LIMITS)
    assert count(fused, AllReduceNorm) == 64 and count(fused, AllReduce) == 1, "but for the embedding's"
    apart = {
        rows: next(op.apart for _, op, _ in walk(graph_of(
            DENSE, decode(float(rows), 10.0), residual_norms=True, all_reduce_norms=LIMITS,
        )) if isinstance(op, AllReduceNorm))
        for rows in (1, 122, 123)
    }  # fmt: skip
    assert apart == {1: 0.0, 122: 0.0, 123: 1.0}, "122 rows of 4,096 numbers of 2 bytes are less than 1 MB"


@pytest.mark.parametrize("device", ["h100-sxm", "b200-sxm"])
def test_an_all_reduce_with_its_norm_costs_no_more_and_grows_with_its_rows(device: str) -> None:
    rows = np.arange(1.0, 200.0)
    plain, within = (
        gs.simulate(
            DENSE, device, rows, 10.0, 1, parallelism=gs.Parallelism(tp=2),
            engine=replace(PLAIN, fusions=EngineFusions(residual_norms=True, all_reduce_norms=limits)),
        ).tpot_s
        for limits in ((), LIMITS)
    )  # fmt: skip
    assert np.all(within <= plain * (1 + 1e-9))
    assert np.all(np.diff(within[::25]) > 0)
    assert within[130] == pytest.approx(plain[130]), "too large a message: a kernel of its own"


def test_architectures_and_families_decide_which_norms_do() -> None:
    fusions = load_profile("vllm").fusions
    assert fusions.message_limits("llama-3.1-8b", "hopper") and not fusions.message_limits("llama-3.1-8b", "ampere")
    assert load_profile("sglang").fusions.message_limits("deepseek-v3", "hopper")
    assert not load_profile("sglang").fusions.message_limits("llama-3.1-8b", "hopper")
    assert not load_profile("vllm-0.15").fusions.message_limits("llama-3.1-8b", "hopper")
    limits = dict(fusions.message_limits("llama-3.1-8b", "hopper"))
    assert limits[2.0] > limits[4.0] > limits[8.0]


def test_sums_go_on_where_an_adapter_takes_the_all_reduce() -> None:
    """What adapters add behind an all-reduce comes between it and the norm."""
    lora = gs.LoraConfig(rank=8, target_modules="all-linear", tp_scheme="sglang")
    engine = replace(load_profile("sglang"), fusions=EngineFusions(residual_norms=True, all_reduce_norms=LIMITS))
    deployment = gs.Deployment(DENSE, parallelism=gs.Parallelism(tp=2), engine=engine, lora=lora)
    (graph,) = deployment.stages(PHASES[0])
    validate(graph, "lowered")
    assert count(graph, AllReduceNorm) == 0 and count(graph, AddNorm) == 64


def test_latent_attention_has_one_product_down() -> None:
    fused = graph_of(LATENT, PHASES[0], latent_projections=True)
    roles = {op.role for _, op, _ in walk(fused) if isinstance(op, Gemm)}
    assert "fused_qkv_a_proj" in roles and not roles & {"q_a_proj", "kv_a_proj_with_mqa"}


def test_a_delta_net_has_two_products_in() -> None:
    fused = graph_of(DELTA, PHASES[0], delta_projections=True)
    roles = {op.role for _, op, _ in walk(fused) if isinstance(op, Gemm) and op.role.startswith("in_proj")}
    assert roles == {"in_proj_qkvz", "in_proj_ba"}


@pytest.mark.parametrize("model", [DENSE, LATENT, DELTA])
def test_rotated_keys_go_straight_into_the_cache(model: str) -> None:
    plain, fused = graph_of(model, PHASES[1]), graph_of(model, PHASES[1], rope_caches=("any",))
    assert count(fused, Rope) == 0 and count(fused, KvCache) == 0
    assert count(fused, RopeCache) == count(plain, KvCache)
    assert sum(op.state_bytes * t for _, op, t in walk(fused)) == sum(op.state_bytes * t for _, op, t in walk(plain))


def test_routed_and_shared_experts_are_reduced_together() -> None:
    plain, fused = graph_of(DELTA, PHASES[0]), graph_of(DELTA, PHASES[0], expert_all_reduce=True)
    assert count(plain, AllReduce) - count(fused, AllReduce) == 40, "one of two in each layer"


def test_experts_pick_themselves() -> None:
    plain, fused = graph_of(SPARSE, PHASES[0]), graph_of(SPARSE, PHASES[0], routing_in_experts=("any",))
    assert count(fused, Route) == 0 and count(fused, RoutedGather) == count(plain, Route) > 0


def test_shared_experts_run_in_a_stream_only_where_no_prompt_leaves_them_no_room() -> None:
    for phase, beside in zip(PHASES, (True, False), strict=True):
        graph = graph_of(LATENT, phase, shared_experts=(("any", "stream"),))
        moved = [op for _, op, _ in walk(graph) if op.stream == SIDE]
        assert bool(moved) == beside
        assert {op.role for op in moved} <= {"gate_up_proj", "act_mul", "down_proj"}
    times = [
        gs.simulate(
            LATENT, "b200-sxm", 4, 1000, 8, parallelism=gs.Parallelism(tp=8),
            engine=replace(PLAIN, fusions=EngineFusions(shared_experts=(("any", how),))),
        ).tpot_s
        for how in ("apart", "stream")
    ]  # fmt: skip
    assert times[1] < times[0]


def test_a_shared_expert_in_the_kernel_is_chosen_by_every_token() -> None:
    plain, fused = graph_of(LATENT, PHASES[0]), graph_of(LATENT, PHASES[0], shared_experts=(("any", "kernel"),))
    one, more = (next(op for _, op, _ in walk(graph) if isinstance(op, ExpertGemm)) for graph in (plain, fused))
    assert more.of == one.of + 1 and more.chosen == one.chosen + 1
    assert more.hit == pytest.approx(one.hit + 1)
    assert count(plain, Gemm) - count(fused, Gemm) == 2 * 58


def test_a_shared_expert_of_another_shape_stays_apart() -> None:
    model = "deepseek-v2-lite"  # two shared experts, as one of twice the width
    plain, fused = (graph_of(model, PHASES[0], shared_experts=flag) for flag in ((), (("any", "kernel"),)))
    assert count(plain, Gemm) == count(fused, Gemm)


@pytest.mark.parametrize("name", ["reference", "peft", "slora"])
def test_engines_that_fuse_nothing_have_graphs_as_they_were(name: str) -> None:
    assert load_profile(name).fusions == EngineFusions()


@pytest.mark.parametrize(
    "model", [DENSE, LATENT, DELTA, SPARSE, "gemma-3-4b", "mamba-2.8b", "falcon-7b", "qwen2.5-vl-7b"]
)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_fused_graphs_of_an_engine_are_valid_and_weigh_the_same(model: str, engine: str) -> None:
    deployments = [gs.Deployment(model, "b200-sxm", engine=name) for name in (engine, "reference")]
    for phase in PHASES:
        (fused,), (plain,) = (deployment.stages(phase) for deployment in deployments)
        validate(fused, "lowered")
        assert weights(fused) == pytest.approx(weights(plain), rel=1e-12)
        assert gs.total_work(fused).flops == pytest.approx(gs.total_work(plain).flops)


@pytest.mark.parametrize("parallelism", [gs.Parallelism(tp=2, ep=2), gs.Parallelism(pp=2), gs.Parallelism(tp=2, sp=2)])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_formulas_and_passes_give_the_same(engine: str, parallelism: gs.Parallelism) -> None:
    deployment = gs.Deployment("deepseek-v2-lite", "h100-sxm", engine=engine, parallelism=parallelism)
    batches = np.array([1.0, 8.0, 300.0])
    together = gs.simulate(deployment, batch=batches, input_tokens=200.0, output_tokens=2.0)
    for i, batch in enumerate(batches):
        alone = gs.simulate(deployment, batch=batch, input_tokens=200, output_tokens=2)
        assert together.tpot_s[i] == pytest.approx(alone.tpot_s)  # type: ignore[index]


def test_fp8_products_take_what_is_quantised_ahead() -> None:
    """Of a layer's four products, all but attention's output's follow a norm or an activation."""
    engine = replace(PLAIN, fusions=EngineFusions(static_quantisation=True, residual_norms=True))
    deployment = gs.Deployment(DENSE, "h100-sxm", engine=engine, precision="fp8")
    (graph,) = deployment.stages(PHASES[0])
    roles = {op.role for _, op, _ in walk(graph) if isinstance(op, Gemm) and op.quantised}
    assert roles == {"qkv_proj", "gate_up_proj", "down_proj"}
    fast, slow = (gs.simulate(DENSE, "h100-sxm", 4, 300, 8, precision="fp8", engine=one) for one in (engine, PLAIN))
    assert fast.tpot_s < slow.tpot_s and fast.prefill.latency_s < slow.prefill.latency_s
    (plain,) = gs.Deployment(DENSE, "h100-sxm", engine=engine).stages(PHASES[0])
    assert not any(op.quantised for _, op, _ in walk(plain) if isinstance(op, Gemm))


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
def test_merged_weights_run_the_kernels_of_the_base(engine: str) -> None:
    """A merge runs once; what a step's GEMMs take is quantised ahead with it as without."""
    base, merged = (
        gs.simulate("llama-3.1-8b", "l40s", [1, 64], 128, 16, engine=engine, precision="fp8", lora=lora)
        for lora in (None, gs.LoraConfig(rank=16, target_modules=["attn", "ffn"], strategy="merge"))
    )
    np.testing.assert_allclose(merged.tpot_s, base.tpot_s, rtol=1e-12)
    np.testing.assert_allclose(merged.ttft_s, base.ttft_s, rtol=1e-12)
