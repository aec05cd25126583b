"""Adapters of the embedding and the output head over a tensor-parallel group: whole where the engine keeps them."""

from __future__ import annotations

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import validate
from tests.paths import hf_configs

HIDDEN, VOCAB, RANK, BATCH = 4096, 128256, 16, 8


def slot_megabytes(tp: int) -> float:
    """One slot of Llama-3.1-8B in vLLM, by hand: A whole and B cut at q, k, v, gate, up; A cut and B whole at o, down.

    32 layers, 4096 wide, 1024 of k and v, 14336 of the MLP, 16 ranks of 2 bytes; embedding and head whole.
    """
    qkv = 3 * HIDDEN + (HIDDEN + 2 * 1024) / tp
    gate_up = 2 * HIDDEN + 2 * 14336 / tp
    o, down = HIDDEN / tp + HIDDEN, 14336 / tp + HIDDEN
    return RANK * 2 * (32 * (qkv + gate_up + o + down) + 2 * (HIDDEN + VOCAB)) / 1e6


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tp, logged", [(1, 92.357), (2, 65.09), (4, 51.46), (8, 44.65)])
def test_a_slot_holds_the_whole_pairs_of_embedding_and_head(tp: int, logged: float, sharded: bool) -> None:
    lora = gs.LoraConfig(
        rank=RANK, max_loras=1, max_lora_rank=RANK, target_modules=["attn"], fully_sharded_loras=sharded
    )
    where = gs.Parallelism(tp=tp)
    found = gs.footprint("llama-3.1-8b", "h100-sxm", lora, engine="vllm", parallelism=where).slot_bytes / 1e6
    ends = RANK * 2 * 2 * (HIDDEN + VOCAB) / 1e6
    if sharded:  # every factor of the layers is a tp-th of itself
        assert found == pytest.approx((92.356608 - ends) / tp + ends, rel=1e-9)
    else:
        assert found == pytest.approx(slot_megabytes(tp), rel=1e-9) == pytest.approx(logged, abs=0.006)


def graph_of(engine: str, model: object = "llama-3.1-8b", sp: int = 1, **fields: object) -> nx.DiGraph:
    fields = {"rank": RANK, "target_modules": ["attn"]} | fields
    where = gs.Parallelism(tp=4, sp=sp)
    return gs.build_graph(model, "decode", batch=BATCH, lora=gs.LoraConfig(**fields), parallelism=where, engine=engine)


@pytest.mark.parametrize("fields", [{}, {"target_modules": ["attn", "lm_head", "embed_tokens"]}])
@pytest.mark.parametrize("sp", [1, 4])
@pytest.mark.parametrize("engine", ["vllm", "vllm-0.8", "vllm-0.5"])
def test_vllm_adds_to_the_gathered_logits_and_the_completed_rows(engine: str, sp: int, fields: dict) -> None:
    graph = graph_of(engine, sp=sp, **fields)
    validate(graph, "lowered")
    head, table = graph.nodes["lm_head.lora_expand"]["op"], graph.nodes["embed_tokens.lora_expand"]["op"]
    assert (head.n, head.width, head.m, head.k) == (VOCAB, VOCAB, BATCH, RANK)
    assert set(graph.predecessors("lm_head.lora_expand")) == {"lm_head.all_gather", "lm_head.lora_shrink"}
    assert set(graph.successors("lm_head.all_gather")) == {"lm_head.lora_expand", "lm_head.lora_fill"}
    assert graph.nodes["lm_head.lora_shrink"]["op"].k == HIDDEN
    brought = "reduce_scatter" if sp > 1 else "all_reduce"
    assert set(graph.predecessors("embed_tokens.lora_expand")) == {
        f"embed_tokens.{brought}",
        "embed_tokens.lora_lookup",
    }
    assert (table.n, table.m) == (HIDDEN, BATCH / sp)
    assert graph.nodes["embed_tokens.lora_lookup"]["op"].vocabulary - VOCAB == (0 if engine == "vllm" else 256)


def test_sglang_cuts_the_heads_b_over_the_vocabulary_and_keeps_the_embeddings_pair() -> None:
    graph = graph_of("sglang", target_modules=["attn", "lm_head", "embed_tokens"])
    head = graph.nodes["lm_head.lora_expand"]["op"]
    assert (head.n, head.width) == (VOCAB / 4, VOCAB / 4)
    assert [type(graph.nodes[v]["op"]).__name__ for v in graph.successors("lm_head.lora_expand")] == ["AllGather"]
    assert graph.nodes["embed_tokens.lora_lookup"]["op"].vocabulary == VOCAB
    assert "embed_tokens.all_reduce" in graph.pred["embed_tokens.lora_expand"]


def test_a_soft_cap_takes_logits_with_the_adapters_added() -> None:
    """Gemma 2: logits are gathered, added to, and capped then, as vLLM's LogitsProcessor does it."""
    gemma = gs.load_model(hf_configs()["default:gemma2"])
    graph = graph_of("vllm", gemma, target_modules=["attn", "lm_head"])
    assert list(graph.predecessors("logit_soft_cap")) == ["lm_head.lora_expand"]
    assert graph.nodes["logit_soft_cap"]["op"].elems == BATCH * 256000


def test_whole_pairs_of_the_head_do_not_get_faster_with_more_devices() -> None:
    one, four = (
        gs.simulate(
            "llama-3.1-8b", "h100-sxm", BATCH, 128, 4, engine="vllm", lora=gs.LoraConfig(rank=RANK),
            parallelism=gs.Parallelism(tp=tp),
        ).decode.to_frame().set_index("name")
        for tp in (1, 4)
    )  # fmt: skip
    for node in ("lm_head.lora_shrink", "lm_head.lora_expand"):
        assert four.latency_s[node] == pytest.approx(one.latency_s[node])
        assert four.weight_bytes[node] == one.weight_bytes[node]
