"""A layer under expert parallelism ends with its hottest rank, and tokens travel as the engine sends them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

import graphsim as gs
from graphsim.graph import validate, walk
from graphsim.ops import AllGather, ExchangeTokens, ExpertGemm, GatherTokens, Permute, ReduceScatter, ScatterTokens
from graphsim.ops.expert_ranks import PLACEMENTS, reach
from graphsim.ops.lora_experts import ExpertLoraGemm
from tests.paths import ROOT

TOKENS = 64


def skewed(skew: float, name: str = "qwen3-30b-a3b") -> dict[str, Any]:
    """A shipped model whose experts are popular by Zipf's law."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())
    kept = {key: value for key, value in found.items() if key not in ("aliases", "parameters", "source")}
    return kept | {"name": f"skewed-{name}", "moe": found["moe"] | {"skew": skew}}


def stack(skew: float, **described: Any) -> ExpertGemm:
    graph = gs.build_graph(skewed(skew), "decode", batch=TOKENS, input_tokens=16, **described)
    validate(graph)
    return next(op for _, op, _ in walk(graph) if isinstance(op, ExpertGemm))


def drawn(skew: float, experts: int = 128, chosen: int = 8, tokens: int = TOKENS) -> np.ndarray:
    """Whether each token goes to each expert: systematic sampling, whose chances are exactly those of `reach`."""
    draw, chances = np.random.default_rng(5), reach(experts, chosen, skew)
    found = np.zeros((tokens, experts), dtype=bool)
    for token in range(tokens):
        order = draw.permutation(experts)
        edges = np.concatenate([[0.0], np.cumsum(chances[order])])
        points = draw.random() + np.arange(chosen)
        found[token, order[np.searchsorted(edges, points, side="right") - 1]] = True
    return found


def test_the_hottest_ranks_rows_and_experts_are_those_of_drawn_tokens():
    """Eight ranks, the most popular experts together on the first."""
    op = stack(1.0, parallelism=gs.Parallelism(ep=8, expert_placement="contiguous"))
    routed = drawn(1.0, tokens=TOKENS * 50)[:, :16]
    assert float(op.m) == pytest.approx(routed.sum() / 50, rel=0.01)
    assert float(op.hit) == pytest.approx(routed.reshape(50, TOKENS, 16).any(axis=1).sum(axis=1).mean(), rel=0.01)


MODELS = ("qwen3-30b-a3b", "mixtral-8x7b", "gpt-oss-20b")
DEGREES = ({"ep": 8}, {"tp": 8, "ep": 8}, {"tp": 4, "ep": 2}, {"tp": 2, "ep": 8})
DEPLOYED = [(name, degrees, cost) for name in MODELS for degrees in DEGREES for cost in (None, "roofline")]


@pytest.mark.parametrize(
    ("name", "degrees", "cost"),
    [each if i in (0, 11, 20) else pytest.param(*each, marks=pytest.mark.slow) for i, each in enumerate(DEPLOYED)],
)
def test_skew_is_never_faster_and_the_better_placement_never_slower(name, degrees, cost):
    def times(skew: float, placement: str) -> tuple[float, float]:
        found = gs.simulate(
            skewed(skew, name), "h100-sxm", batch=32, input_tokens=256, output_tokens=2, cost=cost,
            parallelism=gs.Parallelism(**degrees, expert_placement=placement), engine="reference"
        )  # fmt: skip
        return float(found.ttft_s), float(found.tpot_s)

    even = times(0.0, "random")
    by_placement = [times(1.0, placement) for placement in ("balanced", "random", "contiguous")]
    for better, worse in zip([even, *by_placement], by_placement, strict=False):
        assert all(slow >= fast * (1 - 1e-9) for fast, slow in zip(better, worse, strict=True))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_without_skew_the_placement_is_of_no_account(placement):
    plain = gs.simulate("mixtral-8x7b", "h100-sxm", parallelism=gs.Parallelism(ep=8), engine="reference")
    placed = gs.simulate(
        "mixtral-8x7b", "h100-sxm", parallelism=gs.Parallelism(ep=8, expert_placement=placement), engine="reference"
    )
    assert placed.tpot_s == plain.tpot_s and placed.ttft_s == plain.ttft_s


def test_degrees_as_arrays_give_what_each_gives_alone():
    degrees = np.array([1.0, 2.0, 8.0])
    for placement in PLACEMENTS:

        def tpot(degree: Any, placed: str = placement) -> Any:
            many = gs.Parallelism(tp=degree, ep=degree, expert_placement=placed)
            return gs.simulate(
                skewed(1.0), "h100-sxm", batch=16, output_tokens=4, parallelism=many, engine="reference"
            ).tpot_s

        np.testing.assert_allclose(tpot(degrees), [tpot(int(each)) for each in degrees], rtol=1e-12)


def test_copies_of_experts_take_memory_and_level_the_ranks():
    plain, copied = (
        gs.Deployment(
            skewed(1.0),
            "h100-sxm",
            parallelism=gs.Parallelism(ep=16, expert_placement="balanced", redundant_experts=copies),
            engine="reference",
        )
        for copies in (0, 32)
    )
    both = [
        next(op for _, op, _ in walk(each.decode(64, 16)) if isinstance(op, ExpertGemm)) for each in (plain, copied)
    ]
    assert both[1].parameters / both[0].parameters == (128 + 32) / 128
    assert float(both[1].m) < 0.6 * float(both[0].m)
    expert_bytes = 3 * 2048 * 768 * 2 * 48
    weights = [float(gs.simulate(each).memory.weights_bytes) for each in (plain, copied)]
    assert weights[1] - weights[0] == pytest.approx(2 * expert_bytes)


def test_an_adapter_on_experts_has_the_hottest_ranks_rows():
    lora = gs.LoraConfig(rank=8, target_modules=["gate_proj", "up_proj", "down_proj"])
    for skew in (0.0, 1.0):
        degrees = gs.Parallelism(ep=8, expert_placement="contiguous")
        graph = gs.build_graph(skewed(skew), "decode", batch=TOKENS, input_tokens=16, lora=lora, parallelism=degrees)
        base = next(op for _, op, _ in walk(graph) if isinstance(op, ExpertGemm))
        factors = [op for _, op, _ in walk(graph) if isinstance(op, ExpertLoraGemm)]
        assert factors and all(op.m == base.m and op.routing.hit == base.hit for op in factors)


def exchanged(
    engine: str, precision: str | None = None, skew: float = 0.0, phase: str = "prefill", **degrees: int
) -> dict[str, float]:
    """Bytes that a device holds for each exchange of as many tokens in either phase, by direction."""
    graph = gs.build_graph(
        skewed(skew), phase, batch=8 * TOKENS, input_tokens=1, engine=engine, precision=precision,
        parallelism=gs.Parallelism(**degrees),
    )  # fmt: skip
    validate(graph)
    return {
        "there" if "gather_tokens" in name else "back": float(op.payload_bytes)
        for name, op, _ in walk(graph) if isinstance(op, ExchangeTokens)
    }  # fmt: skip


def test_deepep_sends_a_copy_for_each_rank_in_fp8_and_gets_it_back_in_bf16():
    """Against drawn routings: 64 tokens of 2048 numbers on each of 8 ranks, 16 experts on each."""
    copies = drawn(0.0, tokens=4000).reshape(4000, 8, 16).any(axis=2).sum(axis=1).mean()
    found = exchanged("vllm-deepep", "fp8", ep=8)
    assert found["there"] == pytest.approx(TOKENS * copies * 2048 * (1 + 4 / 128), rel=0.02)
    assert found["back"] == pytest.approx(TOKENS * copies * 2048 * 2, rel=0.02)
    assert exchanged("vllm-deepep", "bf16", ep=8)["there"] == found["back"], "experts in bf16 take bf16"
    every = exchanged("reference", "fp8", ep=8)
    assert every["there"] == every["back"] == TOKENS * 8 * 2048 * 2
    assert 2.0 < every["there"] / found["there"] < 4.0, "two to four times less"


@pytest.mark.parametrize("engine", ["vllm-deepep", "sglang-deepep"])
def test_kernels_of_low_latency_send_a_copy_for_each_expert(engine: str) -> None:
    found, every = exchanged(engine, "fp8", phase="decode", ep=8), exchanged("reference", "fp8", phase="decode", ep=8)
    assert found["back"] == every["back"] == TOKENS * 8 * 2048 * 2
    assert found["there"] == pytest.approx(every["there"] / 2 * (1 + 4 / 128))


def test_a_tensor_parallel_group_shares_what_its_tokens_send():
    whole, shared = exchanged("vllm-deepep", ep=8), exchanged("vllm-deepep", tp=2, ep=8)
    assert shared["there"] == pytest.approx(whole["there"])  # half as many replicas have twice the tokens each


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_by_default_engines_gather_all_tokens_and_scatter_the_sums(engine):
    degrees = gs.Parallelism(tp=2, ep=8)
    graph = gs.build_graph(
        "qwen3-30b-a3b", "decode", batch=8 * TOKENS, input_tokens=16, engine=engine, parallelism=degrees
    )
    validate(graph)
    there = next(op for _, op, _ in walk(graph) if isinstance(op, GatherTokens))
    back = next(op for _, op, _ in walk(graph) if isinstance(op, ScatterTokens))
    assert isinstance(there, AllGather) and isinstance(back, ReduceScatter)
    assert there.payload_bytes == back.payload_bytes == 8 * TOKENS * 2048 * 2 and there.group == back.group == 8
    rows = next(op for name, op, _ in walk(graph) if isinstance(op, Permute) and op.gather)
    assert rows.rows == next(op for _, op, _ in walk(graph) if isinstance(op, ExpertGemm)).m == 8 * TOKENS * 8 / 8


@pytest.mark.parametrize(("described", "said"), [
    ({"ep": 8, "expert_placement": "linear"}, "expert_placement = 'linear' is not known"),
    ({"ep": 8, "redundant_experts": 8}, "redundant_experts = 8 is not allowed with expert_placement = 'random'"),
    ({"redundant_experts": 8, "expert_placement": "balanced"}, "redundant_experts = 8 is not allowed with ep = 1"),
    ({"ep": 8, "redundant_experts": -1}, "redundant_experts"),
])  # fmt: skip
def test_a_placement_that_makes_no_sense_is_refused(described, said):
    with pytest.raises(gs.ConfigError, match=said):
        gs.Parallelism(**described)


def test_copies_have_to_come_to_as_many_on_each_rank():
    degrees = gs.Parallelism(ep=8, redundant_experts=3, expert_placement="balanced")
    with pytest.raises(gs.ConfigError, match="131 experts and copies cannot be divided evenly among the ranks"):
        gs.build_graph("qwen3-30b-a3b", parallelism=degrees)
