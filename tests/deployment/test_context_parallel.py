"""Context parallelism in inference: ranks share prompts and caches as engines do, nothing is done twice or for less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.graph.schedule import makespan_s
from graphsim.graph.validation import validate
from graphsim.lora.profile import load_profile
from graphsim.models.phase import decode, prefill
from graphsim.ops import AllGather, AllReduce, Attention, Collective, Gemm, KvCache, Op, Repeat, RingPass
from graphsim.ops.modules import ModuleSteps

OF_ATTENTION = (Attention, Collective, ModuleSteps)
ENGINES = ("vllm", "sglang", "reference")
LONG = {"batch": 2, "input_tokens": 16384, "output_tokens": 16}


def estimate(cp: int, engine: str = "vllm", model: str = "llama-3.2-1b", **changes: Any) -> Any:
    degrees = gs.Parallelism(cp=cp, tp=changes.pop("tp", 1), pp=changes.pop("pp", 1))
    asked: dict[str, Any] = LONG | changes
    return gs.simulate(model, asked.pop("hardware", "h100-sxm"), parallelism=degrees, engine=engine, **asked)


def deployment(cp: int, engine: str = "vllm", model: str = "llama-3.2-1b", **described: Any) -> gs.Deployment:
    degrees = gs.Parallelism(cp=cp, tp=described.pop("tp", 1))
    return gs.Deployment(model, "h100-sxm", engine=engine, parallelism=degrees, **described)


def ops(graph: Any, kind: type[Op]) -> list[tuple[Any, float]]:
    return [(op, float(times)) for _, op, times in walk(graph) if isinstance(op, kind)]


def layers(graph: Any) -> list[tuple[Any, float]]:
    """Operations of the layers, and how many of each there are; the output head's rows are every rank's."""
    bodies = [(op.body, float(op.times)) for _, op in graph.nodes(data="op") if isinstance(op, Repeat)]
    return [(op, times * outer) for body, outer in bodies for _, op, times in walk(body)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_one_rank_is_what_it_was(engine: str) -> None:
    plain = gs.simulate("llama-3.2-1b", "h100-sxm", engine=engine, **LONG)
    one = estimate(1, engine)
    assert (one.ttft_s, one.tpot_s, one.memory.to_dict()) == (plain.ttft_s, plain.tpot_s, plain.memory.to_dict())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("described", [{}, {"tp": 2}, {"lora": gs.LoraConfig(rank=16)}, {"model": "gpt-oss-20b"}])
def test_ranks_together_compute_a_prompt_once(engine: str, described: dict[str, Any]) -> None:
    one, four = (deployment(cp, engine, **described).prefill(2, 8192) for cp in (1, 4))

    def flops(graph: Any) -> float:
        return sum(float(op.work().flops) * times for op, times in layers(graph))

    assert 4.0 * flops(four) == pytest.approx(flops(one), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_adapters_work_on_a_rank_s_own_tokens(engine: str) -> None:
    lora = gs.LoraConfig(rank=16)
    one, four = (deployment(cp, engine, lora=lora).prefill(2, 8192) for cp in (1, 4))

    def moved(graph: Any) -> float:
        return sum(float(op.work().write_bytes) * times for op, times in layers(graph) if op.adapter)

    assert 4.0 * moved(four) == pytest.approx(moved(one), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "ways"), [("vllm", 4.0), ("reference", 4.0), ("sglang", 1.0)])
@pytest.mark.parametrize("model", ["llama-3.2-1b", "gpt-oss-20b", "deepseek-v2-lite"])
def test_the_cache_is_shared_or_not_as_the_engine_does(engine: str, ways: float, model: str) -> None:
    one, four = (estimate(cp, engine, model) for cp in (1, 4))
    blocks = 4 * 16  # of all ranks together, rounded up
    assert float(four.memory.kv_cache_bytes) * ways == pytest.approx(
        float(one.memory.kv_cache_bytes), rel=2 * blocks / LONG["input_tokens"]
    )
    assert float(four.memory.kv_cache_bytes) * ways >= float(one.memory.kv_cache_bytes)
    assert four.memory.weights_bytes == one.memory.weights_bytes


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_indexer_s_keys_are_all_on_each_rank(engine: str) -> None:
    one, four = (estimate(cp, engine, "deepseek-v3.2", tp=8) for cp in (1, 4))
    assert four.memory.kv_cache_bytes == one.memory.kv_cache_bytes
    assert four.tpot_s == one.tpot_s and four.ttft_s < one.ttft_s


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["llama-3.2-1b", "deepseek-v2-lite"])
def test_a_prompt_takes_less_time_but_no_less_than_its_share(engine: str, model: str) -> None:
    times = [float(estimate(cp, engine, model).ttft_s) for cp in (1, 2, 4, 8)]
    assert all(later < earlier for earlier, later in zip(times, times[1:], strict=False))
    assert all(time >= times[0] / cp for cp, time in zip((1, 2, 4, 8), times, strict=True))


def linked(bytes_per_s: float, latency_s: float) -> gs.Hardware:
    device = gs.load_hardware("h100-sxm")
    links = tuple(replace(link, bytes_per_s=bytes_per_s, latency_s=latency_s) for link in device.links)
    return replace(device, links=links)


@pytest.mark.parametrize("engine", ENGINES)
def test_over_perfect_links_attention_takes_between_its_share_and_all(engine: str) -> None:
    device = linked(1e30, 0.0)

    def attention_s(cp: int) -> float:
        step = gs.annotate(deployment(cp, engine).prefill(2, 16384), device, cost="roofline")
        body = next(op.body for _, op in step.nodes(data="op") if isinstance(op, Repeat))
        return makespan_s(body.subgraph(n for n, op in body.nodes(data="op") if isinstance(op, OF_ATTENTION)))

    one = attention_s(1)
    for cp in (2, 4, 8):
        assert one / cp * (1.0 - 1e-9) <= attention_s(cp) <= one


@pytest.mark.parametrize("engine", ENGINES)
def test_faster_links_are_never_slower(engine: str) -> None:
    rates = (1e10, 1e11, 1e12)
    found = [estimate(4, engine, hardware=linked(rate, 2e-6), cost="roofline") for rate in rates]
    for earlier, later in zip(found, found[1:], strict=False):
        assert later.ttft_s <= earlier.ttft_s and later.tpot_s <= earlier.tpot_s


def test_degrees_multiply() -> None:
    assert gs.Parallelism(tp=2, pp=3, cp=4, dp=5).devices == 120


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "ranks"), [("vllm", [1, 2, 8]), ("reference", [1, 2, 8]), ("sglang", [2, 8])])
def test_arrays_of_ranks_give_what_each_gives_alone(engine: str, ranks: list[int]) -> None:
    together = gs.simulate("llama-3.2-1b", "h100-sxm", engine=engine, parallelism=gs.Parallelism(cp=ranks), **LONG)
    for i, cp in enumerate(ranks):
        alone = estimate(cp, engine)
        assert together.ttft_s[i] == pytest.approx(float(alone.ttft_s), rel=1e-9)
        assert together.tpot_s[i] == pytest.approx(float(alone.tpot_s), rel=1e-6)
        assert together.memory.kv_cache_bytes[i] == pytest.approx(float(alone.memory.kv_cache_bytes))


def test_one_rank_beside_several_is_refused_where_kernels_differ() -> None:
    with pytest.raises(gs.ConfigError, match="is 1 in some scenarios only; simulate those separately"):
        gs.simulate("llama-3.2-1b", "h100-sxm", engine="sglang", parallelism=gs.Parallelism(cp=[1, 2]))


def test_what_is_exchanged_is_what_engines_exchange() -> None:
    """All rows of a layer's keys and values, in the cache's format (vLLM) or the activations' (SGLang); 3/4 arrive."""
    rows, width = 2 * 8192, 8 * 2 * 64
    for engine in ("vllm", "sglang"):
        (gather, times), *_ = ops(deployment(4, engine).prefill(2, 8192), AllGather)
        assert float(gather.work().message_bytes) == 0.75 * rows * width * 2 and times == 16
    (ring, _) = ops(deployment(4, "reference").prefill(2, 8192), RingPass)[0]
    assert float(ring.work().message_bytes) == 3 * rows / 4 * width * 2


def test_generation_over_a_shared_cache_sums_results_by_their_log_sum_exp() -> None:
    graph = deployment(4, tp=2).decode(8, 4095)
    own = [op for op, _ in ops(graph, Attention)]
    assert own[0].kv_tokens == 8 * 4096 / 4 and own[0].query_tokens == 8
    groups = [op for op, _ in ops(graph, Collective) if op.group == 4]
    gather, summed = (next(op for op in groups if isinstance(op, kind)) for kind in (AllGather, AllReduce))
    assert float(gather.payload_bytes) == 4 * 8 * 16 * 4  # of 8 sequences and half of 32 heads, in fp32
    assert float(summed.payload_bytes) == 8 * 16 * 64 * 2 and summed.stride == 2


def test_generation_over_whole_caches_is_that_of_one_rank() -> None:
    one, four = (estimate(cp, "sglang") for cp in (1, 4))
    assert four.tpot_s == one.tpot_s


def test_a_mixed_step_shares_prompts_and_repeats_generation() -> None:
    step = {cp: gs.compile_step(deployment(cp)) for cp in (1, 4)}
    assert step[4](prompt_tokens=16384) < step[1](prompt_tokens=16384)
    both = {cp: float(step[cp](prompt_tokens=8192, generating=64, cache_rows=64 * 1025)) for cp in (1, 4)}
    assert both[1] / 4 < both[4] < both[1]


def test_a_chunk_attends_to_the_past_of_all_ranks() -> None:
    (stage,) = deployment(4).stages(prefill(1.0, 2048.0, 6144.0))
    (cache, _), *_ = ops(stage, KvCache)
    (attention, _), *_ = ops(stage, Attention)
    assert (cache.new_tokens, cache.kv_tokens, cache.kept_tokens) == (512.0, 8192.0, 2048.0)
    assert attention.pairs == (2048 * 6144 + 2048 * 2049 / 2) / 4


@pytest.mark.parametrize(("model", "described", "said"), [
    ("mamba-2.8b", {}, "parallelism.cp = 2 is not allowed: CausalConv passes a state along the tokens of a sequence"),
    ("t5-large", {"engine": "reference"}, "read an encoder's output"),
    ("gpt-oss-20b", {"parallelism": gs.Parallelism(cp=2, ep=4)}, "attention in replicas behind one set of experts"),
    ("llama-3.2-1b", {"engine": "trtllm"}, r"engine 'trtllm' \(context\): context_parallel_size is that of Helix"),
    ("llama-3.2-1b", {"engine": "vllm-0.15"}, "PCP requires attention impls' support"),
    ("llama-3.2-1b", {"engine": "sglang-0.5.9"}, "DeepSeek sparse attention alone"),
    ("llama-3.2-1b", {"engine": "peft"}, "generate.. has no context parallelism"),
])  # fmt: skip
def test_what_cannot_be_shared_is_refused_in_a_sentence(model: str, described: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"parallelism": gs.Parallelism(cp=2)} | described
    with pytest.raises(gs.InfeasibleError, match=said):
        gs.simulate(model, "h100-sxm", **asked)


def test_a_ring_leaves_no_rank_the_whole_cache() -> None:
    with pytest.raises(gs.ConfigError, match="context_cache must be 'sharded'"):
        load_profile({"base": "sglang", "context_exchange": "p2p"})


def test_experts_that_vllm_spreads_further_are_noted() -> None:
    (note,) = [note for note in estimate(2, "vllm", "gpt-oss-20b").notes if "context-parallel" in note]
    assert "over context-parallel ranks too" in note
    assert not any("context-parallel" in note for note in estimate(2, "sglang", "gpt-oss-20b").notes)


def test_a_prompt_shorter_than_its_chunks_is_noted() -> None:
    (note,) = [note for note in estimate(8, "reference", input_tokens=12).notes if "two tokens" in note]
    assert note.startswith("input_tokens = 12 leaves some of 8 context-parallel ranks without two tokens")
    assert not any("two tokens" in note for note in estimate(8, "reference", input_tokens=16).notes)


@pytest.mark.slow
def test_a_pipeline_s_stages_hand_on_a_rank_s_tokens() -> None:
    one, four = (estimate(cp, "reference", pp=2) for cp in (1, 4))
    assert np.all(four.ttft_s < one.ttft_s) and four.memory.weights_bytes == one.memory.weights_bytes


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["llama-3.2-1b", "gpt-oss-20b", "deepseek-v2-lite", "deepseek-v3.2"])
def test_graphs_of_a_rank_are_sound(engine: str, model: str) -> None:
    described = deployment(4, engine, model, tp=2)
    for phase in (prefill(2.0, 4096.0), decode(3.0, 1000.0)):
        for stage in described.stages(phase):
            validate(stage)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_rank_makes_keys_of_all_latent_vectors(engine: str) -> None:
    """So that ranks together do more than one alone: kv_b_proj, c times (vLLM, mla_attention.py)."""

    def flops(cp: int) -> tuple[float, float]:
        found = layers(deployment(cp, engine, "deepseek-v2-lite").prefill(2, 8192))
        raising = [float(op.work().flops) * n for op, n in found if isinstance(op, Gemm) and "value" in op.tags]
        return sum(float(op.work().flops) * n for op, n in found), sum(raising)

    (whole, raised), (rank, raised_too) = flops(1), flops(4)
    assert raised_too == pytest.approx(raised) and 4.0 * rank == pytest.approx(whole + 3.0 * raised, rel=1e-9)
    latent, positions, *_ = [
        op for op, _ in layers(deployment(4, engine, "deepseek-v2-lite").prefill(2, 8192))
        if isinstance(op, AllGather)
    ]  # fmt: skip
    assert (float(latent.elems), float(positions.elems)) == (2 * 8192 * 512, 2 * 8192 * 64)


PUBLISHED_S = {131_072: 3.8, 1_000_000: 77.0}
"""Prompts of Llama 3 405B on 128 H100 (16 hosts, ring attention between them): arXiv 2411.01783, abstract, which gives
a parallel efficiency of 93 % for the longer one. No constant is fitted on these."""


@pytest.mark.slow
def test_a_million_tokens_scale_nearly_linearly_as_published() -> None:
    ring = {"base": "vllm", "name": "ring", "context_exchange": "p2p", "limits": {"positions": None}}

    def seconds(tokens: int, cp: int) -> float:
        found = gs.simulate(
            "llama-3.1-405b", "h100-sxm", input_tokens=tokens, output_tokens=1, precision="fp8", engine=ring,
            parallelism=gs.Parallelism(tp=8, cp=cp),
        )  # fmt: skip
        return float(found.ttft_s - found.engine_time.request_s)

    found = {tokens: (seconds(tokens, 1), seconds(tokens, 16)) for tokens in PUBLISHED_S}
    efficiency = {tokens: alone / 16 / shared for tokens, (alone, shared) in found.items()}
    assert efficiency[1_000_000] > 0.93 and efficiency[131_072] < efficiency[1_000_000]
    for tokens, measured in PUBLISHED_S.items():
        assert measured / 2 < found[tokens][1] < measured
