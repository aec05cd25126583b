"""What an adapter does to a graph: which nodes appear, how large they are, how they are cut, and when they cost."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import total_work, validate, walk
from graphsim.models.build import build
from graphsim.models.phase import decode, prefill
from graphsim.ops import Gemm, LoraA, LoraAdd, LoraB, LoraGemm, LoraMerge, OpType, Residency
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack
from graphsim.passes.shard import shard

TOKENS, RANK = 96.0, 16
WIDTHS = {  # n, k of Llama-3.1 8B's projections
    "q_proj": (4096, 4096),
    "k_proj": (1024, 4096),
    "v_proj": (1024, 4096),
    "o_proj": (4096, 4096),
    "gate_proj": (14336, 4096),
    "up_proj": (14336, 4096),
    "down_proj": (4096, 14336),
}
WORDS = {
    "attn": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "ffn": ["gate_proj", "up_proj", "down_proj"],
    "qkv": ["q_proj", "k_proj", "v_proj"],
    "out proj": ["o_proj"],
    "query": ["q_proj"],
    "key": ["k_proj"],
    "value": ["v_proj"],
    "up+gate": ["gate_proj", "up_proj"],
    "down": ["down_proj"],
    "up": ["up_proj"],
    "gate": ["gate_proj"],
    "w1": ["gate_proj"],
    "w2": ["down_proj"],
    "w3": ["up_proj"],
}


def logical(model: str = "llama-3.1-8b", **phase: float) -> nx.DiGraph:
    return build(gs.load_model(model), prefill(2.0, TOKENS / 2), load_precision("bf16"))


def body(graph: nx.DiGraph) -> nx.DiGraph:
    repeats = [op for _, op in graph.nodes(data="op") if op.op_type is OpType.REPEAT]
    assert len(repeats) == 1
    return repeats[0].body


def adapted(**asked: object) -> nx.DiGraph:
    return gs.inject(logical(), gs.LoraConfig(rank=RANK, **asked))  # type: ignore[arg-type]


def matched(graph: nx.DiGraph) -> list[str]:
    return sorted(name.removesuffix(".lora_a") for name in body(graph) if name.endswith(".lora_a"))


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_targeting_table_reaches_its_projections(word: str) -> None:
    assert matched(adapted(target_modules=[word])) == sorted(WORDS[word])


@pytest.mark.parametrize("name", WIDTHS)
def test_a_dynamic_adapter_is_three_nodes_beside_its_base(name: str) -> None:
    n, k = WIDTHS[name]
    graph = body(adapted(target_modules=[name]))
    base, a, b, joined = (graph.nodes[f"{name}{suffix}"]["op"] for suffix in ("", ".lora_a", ".lora_b", ".lora_add"))
    assert (type(a), type(b), type(joined)) == (LoraA, LoraB, LoraAdd)
    assert [op.op_type for op in (base, a, b, joined)] == [2, 19, 20, 21]
    assert (base.m, base.n, base.k) == (TOKENS, n, k)
    assert (a.m, a.n, a.k) == (TOKENS, RANK, k) and (b.m, b.n, b.k) == (TOKENS, n, RANK)
    assert (joined.m, joined.n, joined.rows) == (TOKENS, n, TOKENS)
    assert list(graph.predecessors(f"{name}.lora_a")) == list(graph.predecessors(name))
    assert list(graph.predecessors(f"{name}.lora_b")) == [f"{name}.lora_a"]
    assert set(graph.predecessors(f"{name}.lora_add")) == {name, f"{name}.lora_b"}
    assert list(graph.successors(name)) == [f"{name}.lora_add"], "whoever read the base now reads the sum"
    assert a.residency is b.residency is Residency.All_offchip and a.residency.name == "All_offchip"


@pytest.mark.parametrize("name", WIDTHS)
def test_the_flops_and_weights_are_the_papers(name: str) -> None:
    n, k = WIDTHS[name]
    graph = body(adapted(target_modules=[name], active_adapters=3))
    a, b, joined = (graph.nodes[f"{name}{suffix}"]["op"].work() for suffix in (".lora_a", ".lora_b", ".lora_add"))
    assert a.flops == 2 * TOKENS * k * RANK and a.weight_bytes == 3 * k * RANK * 2
    assert b.flops == 2 * TOKENS * RANK * n and b.weight_bytes == 3 * RANK * n * 2
    assert joined.flops == TOKENS * n and joined.weight_bytes == 0
    assert joined.read_bytes == 2 * TOKENS * n * 2 and joined.write_bytes == TOKENS * n * 2


@pytest.mark.parametrize("name", WIDTHS)
def test_a_merge_is_one_node_in_front_that_runs_once(name: str) -> None:
    n, k = WIDTHS[name]
    graph = body(adapted(target_modules=[name], strategy="merge"))
    merge = graph.nodes[f"{name}.lora_merge"]["op"]
    assert isinstance(merge, LoraMerge) and merge.op_type == 18 and merge.once
    assert merge.residency.name == "All_offchip"
    assert list(graph.predecessors(f"{name}.lora_merge")) == [] and list(graph.successors(f"{name}.lora_merge")) == [
        name
    ]
    work = merge.work()
    assert work.flops == 2 * n * RANK * k
    assert work.read_bytes == 2 * (n * k + RANK * (n + k)) and work.write_bytes == 2 * n * k
    assert not any(isinstance(op, LoraGemm | LoraAdd) for _, op in graph.nodes(data="op"))


def test_nothing_is_spliced_where_nothing_matched() -> None:
    plain = body(logical())
    graph = body(adapted(target_modules=["q_proj"]))
    assert set(graph) - set(plain) == {"q_proj.lora_a", "q_proj.lora_b", "q_proj.lora_add"}
    for source, target in plain.edges:
        assert graph.has_edge(source, target) or source == "q_proj"
    assert gs.inject(logical(), gs.LoraConfig(enabled=False)).nodes.keys() == logical().nodes.keys()
    untouched = logical()
    assert gs.inject(untouched, None) is untouched


def test_packed_projections_keep_factors_of_their_own() -> None:
    graph = body(pack(adapted(target_modules=["qkv", "up+gate"])))
    assert {"qkv_proj", "gate_up_proj"} <= set(graph) and "q_proj" not in graph
    for base, members in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))):
        assert graph.nodes[base]["op"].n == sum(WIDTHS[name][0] for name in members)
        for name in members:
            assert set(graph.predecessors(f"{name}.lora_add")) == {base, f"{name}.lora_b"}
            assert graph.edges[base, f"{name}.lora_add"]["parts"] == (name,)
            assert graph.nodes[f"{name}.lora_b"]["op"].n == WIDTHS[name][0]
    validate(pack(adapted()))


def test_fused_weights_get_one_pair_over_their_whole_width() -> None:
    """As PEFT does: Phi-3's qkv_proj is one module, 3072 inputs and 3 x 3072 outputs."""
    graph = body(gs.inject(logical("phi-3-mini"), gs.LoraConfig(rank=RANK, target_modules=["qkv"])))
    b = graph.nodes["qkv_proj.lora_b"]["op"]
    assert b.n == 3 * 3072 and sum(part.width for part in b.parts) == b.n
    validate(gs.inject(logical("gpt-2"), gs.LoraConfig(target_modules=["attn", "ffn"])))


COLUMN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
ROW = ("o_proj", "down_proj")


@pytest.mark.parametrize("tp", [2.0, 4.0, 8.0])
def test_factors_are_cut_where_their_base_is(tp: float) -> None:
    """Column-parallel base: A whole, B over n. Row-parallel base: A over k, B whole, one all-reduce for both."""
    graph = body(shard(adapted(), tp))
    for name in COLUMN:
        n, k = WIDTHS[name]
        a, b, joined = (graph.nodes[f"{name}{suffix}"]["op"] for suffix in (".lora_a", ".lora_b", ".lora_add"))
        assert (a.n, a.k, b.n, b.k, joined.n) == (RANK, k, n / tp, RANK, n / tp)
    for name in ROW:
        n, k = WIDTHS[name]
        a, b, joined = (graph.nodes[f"{name}{suffix}"]["op"] for suffix in (".lora_a", ".lora_b", ".lora_add"))
        assert (a.n, a.k, b.n, b.k, joined.n) == (RANK, k / tp, n, RANK, n)
        assert list(graph.successors(f"{name}.lora_add")) == [f"{name}.lora_add.all_reduce"]
    assert [name for name in graph if "all_" in name] == [f"{name}.lora_add.all_reduce" for name in ROW]


@pytest.mark.parametrize("tp", [2.0, 8.0])
def test_fully_sharded_factors_are_both_cut_and_pay_for_it(tp: float) -> None:
    """Also the other factor is cut: an all-gather (column) or all-reduce (row) of rank-wide values appears."""
    graph = body(shard(adapted(fully_sharded_loras=True), tp))
    for name in (*COLUMN, *ROW):
        n, k = WIDTHS[name]
        a, b = graph.nodes[f"{name}.lora_a"]["op"], graph.nodes[f"{name}.lora_b"]["op"]
        row = name in ROW
        assert (a.n, a.k) == ((RANK, k / tp) if row else (RANK / tp, k)) and (b.n, b.k) == (n / tp, RANK)
        assert graph.nodes[f"{name}.lora_add"]["op"].work().flops == TOKENS * n / tp, "each device adds its slice"
        gathered = graph.nodes[f"{name}.lora_a.{'all_reduce' if row else 'all_gather'}"]["op"]
        assert gathered.elems == TOKENS * RANK and gathered.group == tp
    assert sum("all_" in name for name in graph) == len(COLUMN) + 2 * len(ROW)


@pytest.mark.parametrize("fully", [False, True])
@pytest.mark.parametrize("tp", [2.0, 4.0, 8.0])
def test_shards_of_factors_add_up_to_the_whole(tp: float, fully: bool) -> None:
    """What is cut adds up; what is replicated is there on every device: A of column bases, B of row bases."""

    def flops(graph: nx.DiGraph, kind: type, names: tuple[str, ...]) -> float:
        ops = body(graph).nodes(data="op")
        return sum(op.work().flops for name, op in ops if isinstance(op, kind) and name.split(".")[0] in names)

    whole = adapted(fully_sharded_loras=fully)
    share = shard(whole, tp)
    for kind, names, copies in (
        (LoraA, COLUMN, 1.0 if fully else tp),
        (LoraB, COLUMN, 1.0),
        (LoraA, ROW, 1.0),
        (LoraB, ROW, 1.0 if fully else tp),
    ):
        assert flops(share, kind, names) * tp == pytest.approx(copies * flops(whole, kind, names), rel=1e-12)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-8b", "phi-3-mini", "gemma-2-9b", "gpt-2"])
@pytest.mark.parametrize("tp", [2.0, 8.0, 16.0])
def test_merged_weights_are_cut_as_their_bases(model: str, tp: float) -> None:
    config = gs.load_model(model)
    if model == "gpt-2" and tp > 2 or model == "phi-3-mini" and tp > 16:
        pytest.skip("does not divide the heads")
    graph = build(config, decode(4.0, 100.0), load_precision("bf16"))
    share = shard(gs.inject(graph, gs.LoraConfig(strategy="merge")), tp)
    seen = 0
    for _, op in share.nodes(data="op"):
        if op.op_type is OpType.REPEAT:
            for name, merge in op.body.nodes(data="op"):
                if isinstance(merge, LoraMerge):
                    base = op.body.nodes[name.removesuffix(".lora_merge")]["op"]
                    assert (merge.n, merge.k) == (base.n, base.k), name
                    seen += 1
    assert seen >= 4
    validate(share)


@pytest.mark.parametrize("tp", [1, 4])
def test_a_merge_costs_once_and_never_in_a_step(tp: int) -> None:
    asked = {"batch": 4, "input_tokens": 300, "output_tokens": 20, "parallelism": gs.Parallelism(tp=tp)}
    base = gs.simulate("llama-3.1-8b", "h100-sxm", **asked, engine="reference")
    merged = gs.simulate("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(strategy="merge"), **asked, engine="reference")
    assert (merged.ttft_s, merged.tpot_s, merged.latency_s) == (base.ttft_s, base.tpot_s, base.latency_s)
    assert base.one_time_s == 0 < merged.one_time_s
    assert not any("merge" in name for name in merged.prefill.critical_path)
    graph = merged.prefill.graph
    assert total_work(graph).flops == total_work(base.prefill.graph).flops
    assert total_work(graph, once=True).flops * tp == sum(32 * 2 * n * k * 16 for n, k in WIDTHS.values())


def test_a_dynamic_adapter_has_no_one_time_work_and_costs_every_step() -> None:
    base = gs.simulate("llama-3.1-8b", "h100-sxm", engine="reference")
    dynamic = gs.simulate("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(), engine="reference")
    assert dynamic.one_time_s == 0 and dynamic.tpot_s > base.tpot_s and dynamic.ttft_s > base.ttft_s


def test_layers_of_another_rank_are_told_apart() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj"], rank_pattern={r"layers\.(4|5|9)\.self_attn\.q_proj": 64})
    graph = gs.inject(logical(), lora)
    groups = [
        (op.first_layer, op.times, op.body.nodes["q_proj.lora_a"]["op"].n)
        for _, op in graph.nodes(data="op")
        if op.op_type is OpType.REPEAT
    ]
    assert groups == [(0, 4, 8), (4, 2, 64), (6, 3, 8), (9, 1, 64), (10, 22, 8)]
    validate(graph)
    assert gs.lora_parameters("llama-3.1-8b", lora) == (29 * 8 + 3 * 64) * 2 * 4096


def test_layers_without_adapter_stay_as_they_were() -> None:
    graph = gs.inject(logical(), gs.LoraConfig(target_modules=["down_proj"], layers_to_transform=[0, 31]))
    groups = [
        (op.times, any("lora" in name for name in op.body))
        for _, op in graph.nodes(data="op")
        if op.op_type is OpType.REPEAT
    ]
    assert groups == [(1, True), (30, False), (1, True)]


@pytest.mark.parametrize("target", ["q", "proj", "attention", "q_proj.lora", "Q_PROJ", "self_attn", "layers"])
def test_a_target_is_a_whole_name_never_a_part_of_one(target: str) -> None:
    with pytest.raises(gs.ConfigError, match=r"matches no module.*allowed: all-linear, attn, down"):
        gs.lora_parameters("llama-3.1-8b", gs.LoraConfig(target_modules=[target]))


def test_patterns_follow_pefts_rules() -> None:
    def count(target: object, **asked: object) -> int:
        return gs.lora_parameters("llama-3.1-8b", gs.LoraConfig(rank=1, target_modules=target, **asked))  # type: ignore[arg-type]

    one = 4096 + 4096
    assert count(["q_proj"]) == count(r".*\.q_proj") == count(["self_attn.q_proj"]) == 32 * one
    assert count(r".*layers\.(0|1)\.self_attn\.q_proj") == count(["q_proj"], layers_to_transform=[0, 1]) == 2 * one
    assert count(["model.layers.7.self_attn.q_proj"]) == one
    assert count("all-linear") == 32 * sum(n + k for n, k in WIDTHS.values())
    assert count("all-linear", exclude_modules=["q_proj"]) == count("all-linear") - 32 * one


def test_rank_zero_leaves_nodes_but_no_work() -> None:
    graph = gs.inject(logical(), gs.LoraConfig(rank=0))
    work, plain = total_work(graph), total_work(logical())
    assert (work.flops, work.memory_bytes) == (plain.flops, plain.memory_bytes)


def test_only_rows_with_an_adapter_are_worked_on() -> None:
    half, full = (total_work(adapted(adapter_share=share)).flops for share in (0.5, 1.0))
    base = total_work(logical()).flops
    assert half - base == pytest.approx((full - base) / 2)
    none = gs.simulate("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(adapter_share=0.0), engine="reference")
    assert none.tpot_s == pytest.approx(gs.simulate("llama-3.1-8b", "h100-sxm", engine="reference").tpot_s, rel=1e-12)


def test_distinct_adapters_cost_weights_not_flops() -> None:
    few, many = (total_work(adapted(active_adapters=count)) for count in (1, 9))
    assert few.flops == many.flops
    per_adapter = 32 * 2.0 * RANK * sum(n + k for n, k in WIDTHS.values())
    assert many.weight_bytes - few.weight_bytes == pytest.approx(8 * per_adapter)


def test_the_parameters_are_those_of_the_nodes() -> None:
    graph = adapted()
    assert sum(times * op.parameters for _, op, times in walk(graph) if isinstance(op, LoraGemm)) == gs.lora_parameters(
        "llama-3.1-8b", gs.LoraConfig(rank=RANK)
    )
    assert np.isclose(sum(times for _, op, times in walk(graph) if isinstance(op, Gemm)), 32 * 7 * 3 + 1)


def test_the_reference_engine_is_the_default_and_unknown_ones_are_refused() -> None:
    assert gs.to_text(gs.build_graph("gpt-2", engine="reference")) == gs.to_text(gs.build_graph("gpt-2"))
    with pytest.raises(gs.ConfigError, match="did you mean 'vllm'"):
        gs.build_graph("gpt-2", engine="vlm")
    with pytest.raises(gs.ConfigError, match="'sglan' is not known"):
        gs.simulate("gpt-2", "l4", engine="sglan")
