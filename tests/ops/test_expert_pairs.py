"""Which adapters' factors are read of which experts: closed forms against routing drawn token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora import popularity
from graphsim.lora.config import LoraConfig
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.lora_experts import ExpertLoraA

DRAWS = 30


def drawn_pairs(random: Any, experts: int, chosen: int, counts: list[int], skew: float) -> Any:
    """Distinct pairs of an adapter and an expert in each of many draws, where each adapter has so many tokens."""
    popular = np.arange(1.0, experts + 1.0) ** -skew
    chance = np.minimum(chosen * popular / popular.sum(), 1.0)
    found = []
    for _ in range(DRAWS):
        pairs = set()
        for adapter, tokens in enumerate(counts):
            for _ in range(tokens):
                if skew:
                    reached = np.flatnonzero(random.random(experts) < chance)
                else:
                    reached = random.choice(experts, chosen, replace=False)
                pairs |= {(adapter, int(expert)) for expert in reached}
        found.append(len(pairs))
    return np.array(found, dtype=float)


def factor(
    experts: int, chosen: int, counts: list[int], base_tokens: int, skew: float = 0.0, **more: Any
) -> ExpertLoraA:
    """A down projection of rank 1 on one input, where counts are the tokens of each adapter."""
    adapted, tokens = sum(counts), sum(counts) + base_tokens
    routing = ExpertGemm(
        m=float(tokens * chosen), n=1.0, k=1.0, experts=float(experts), of=experts, chosen=chosen,
        tokens=float(tokens), skew=skew,
    )  # fmt: skip
    lora = LoraConfig(shares=counts, adapter_share=adapted / tokens)
    return ExpertLoraA(
        m=float(adapted * chosen), n=1.0, k=1.0, routing=routing, adapted=lora.adapter_share, spread=lora.spread,
        adapters=lora.active_adapters, **more,
    )  # fmt: skip


@pytest.mark.parametrize("skew", [0.0, 0.8])
@pytest.mark.parametrize("seed", range(6))
def test_pairs_of_adapters_and_experts_are_those_of_drawn_routings(seed: int, skew: float) -> None:
    random = np.random.default_rng(seed)
    experts, chosen = int(random.integers(4, 64)), int(random.integers(1, 5))
    counts = [int(n) for n in random.integers(1, 20, size=random.integers(1, 6))]
    op = factor(experts, chosen, counts, int(random.integers(0, 20)), skew)
    drawn = drawn_pairs(random, experts, chosen, counts, skew)
    assert op.pairs == pytest.approx(drawn.mean(), abs=4.0 * drawn.std() / np.sqrt(DRAWS) + 1e-9)
    assert op.work().weight_bytes == op.pairs * 2.0


@pytest.mark.parametrize("seed", range(20))
def test_no_more_pairs_than_routed_rows_nor_than_an_even_spread_reaches(seed: int) -> None:
    random = np.random.default_rng(seed)
    experts = int(random.integers(4, 256))
    counts = [int(n) for n in random.integers(1, 40, size=random.integers(1, 40))]
    op = factor(experts, int(random.integers(1, 9) % experts) or 1, counts, int(random.integers(0, 9)))
    assert 0 < op.pairs <= op.m * (1 + 1e-12)
    even = ExpertLoraA(m=op.m, n=1.0, k=1.0, routing=op.routing, adapted=op.adapted, adapters=op.adapters)
    assert op.pairs <= even.pairs * (1 + 1e-12) and even.pairs <= op.m * (1 + 1e-12)


def test_more_adapters_than_tokens_read_one_factor_for_each_row() -> None:
    routing = ExpertGemm(m=8.0, n=1.0, k=1.0, experts=64.0, of=64, chosen=2, tokens=4.0)
    assert ExpertLoraA(m=8.0, n=1.0, k=1.0, routing=routing, adapters=50.0).pairs == pytest.approx(8.0)
    assert ExpertLoraA(m=0.0, n=1.0, k=1.0, routing=routing, adapters=0.0).pairs == 0.0


@pytest.mark.parametrize("ranks", [1.0, 4.0])
def test_each_rank_reads_the_pairs_of_its_own_experts(ranks: float) -> None:
    op = factor(32, 2, [3, 5, 8], 0)
    routing = gs.ops.ExpertGemm(m=op.m, n=1.0, k=1.0, experts=32.0, of=32, chosen=2, tokens=16.0, ranks=ranks)
    whole = ExpertLoraA(m=op.m, n=1.0, k=1.0, routing=routing, spread=op.spread, adapters=op.adapters)
    assert whole.cut(4.0).pairs == pytest.approx(op.pairs / ranks)


TABLE = {
    ("qwen3-30b-a3b", 32, 32): 256.0, ("qwen3-30b-a3b", 32, 8): 233.0, ("mixtral-8x7b", 8, 8): 16.0,
    ("gpt-oss-120b", 32, 8): 122.1,
}  # fmt: skip
"""k · E · (1 - (1 - chosen / E)^(T / k)), by hand."""


@pytest.mark.parametrize(("model", "batch", "adapters"), TABLE)
def test_a_decode_step_reads_the_factors_of_the_experts_that_each_adapters_tokens_reach(
    model: str, batch: int, adapters: int
) -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["ffn"], active_adapters=adapters)
    graph = gs.Deployment(model, "h200-sxm", lora=lora, engine="reference").decode(batch, 1024)
    op = next(op for _, op, _ in walk(graph) if isinstance(op, ExpertLoraA))
    assert op.work().weight_bytes / (op.n * op.k * 2) == pytest.approx(TABLE[model, batch, adapters], abs=0.05)


def test_a_popular_adapter_saves_reads_of_the_others() -> None:
    """By hand, 32 tokens of which one adapter has 29 and three others one each, top 8 of 128 experts."""
    lora = gs.LoraConfig(rank=16, target_modules=["ffn"], shares=(29, 1, 1, 1))
    assert lora.active_adapters == 4
    graph = gs.Deployment("qwen3-30b-a3b", "h200-sxm", lora=lora, engine="reference").decode(32, 1024)
    op = next(op for _, op, _ in walk(graph) if isinstance(op, ExpertLoraA))
    assert op.pairs == pytest.approx(128 * (1 - (1 - 8 / 128) ** 29) + 3 * 8)


def test_a_pool_brings_its_popularity_along() -> None:
    pool = gs.LoraConfig(rank=8, target_modules=["ffn"]).among(popularity.zipf(200, 1.5), 32)
    assert pool.active_adapters == pytest.approx(popularity.expected_distinct(popularity.zipf(200, 1.5), 32))
    assert sum(alike * share for alike, share in pool.spread) == pytest.approx(1.0)
    assert len(pool.spread) < 60
    step = gs.compile_step("mixtral-8x7b", "h100-sxm", lora=pool, engine="reference")
    whole = gs.simulate("mixtral-8x7b", "h100-sxm", 32, 512, 1, lora=pool, engine="reference")
    assert step(prompt_tokens=32 * 512, prompts=32, prompt_pairs=32 * 512 * 513 / 2) == pytest.approx(whole.ttft_s)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shares": 3}, "lora.shares = 3 is not allowed; expected a list of numbers"),
        ({"shares": (0, 0)}, "expected one above 0"),
        ({"shares": (1, -1)}, "lora.shares = -1 is not allowed; expected a single number from 0"),
        ({"shares": (1, 1), "active_adapters": 3}, "lora.shares of 2 adapters; allowed: at most 2"),
    ],
)
def test_shares_that_cannot_be_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.LoraConfig(**given)
