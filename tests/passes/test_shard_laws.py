"""Cut over devices: work is conserved, heads are repeated when too few, collectives stand where layouts demand them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import add, validate, walk
from graphsim.models.build import build
from graphsim.models.phase import decode, prefill
from graphsim.models.yaml import read_model
from graphsim.ops import (
    AllGather,
    AllReduce,
    Attention,
    Collective,
    Gemm,
    Input,
    KvCache,
    Op,
    OpType,
    ReduceScatter,
    Repeat,
)
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack
from graphsim.passes.shard import shard
from tests.catalog import QUICK
from tests.paths import hf_configs

MODELS = ("llama-3.1-8b", "qwen3-8b", "gemma-2-9b", "mistral-7b", "phi-3-mini")
TOKENS = 128.0


def whole(model: str) -> nx.DiGraph:
    return build(gs.load_model(model), prefill(2.0, TOKENS / 2), load_precision("bf16"))


def ops(graph: nx.DiGraph, kind: type) -> list[tuple[str, object, int]]:
    return [(name, op, times) for name, op, times in walk(graph) if isinstance(op, kind)]


def flops(graph: nx.DiGraph, *kinds: type) -> float:
    return sum(times * op.work().flops for kind in kinds for _, op, times in ops(graph, kind))  # type: ignore[attr-defined]


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("tp", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("model", MODELS)
def test_products_are_dealt_out_without_loss(model: str, tp: float, sequence: bool) -> None:
    graph = whole(model)
    assert flops(shard(graph, tp, sequence), Gemm, Attention) * tp == pytest.approx(
        flops(graph, Gemm, Attention), rel=1e-12
    )


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-8b"])
@pytest.mark.parametrize("tp", [16.0, 32.0])
def test_key_heads_are_repeated_when_there_are_fewer_than_devices(model: str, tp: float) -> None:
    """8 key heads: k, v, cache and rotary keys stop shrinking at one head per device; everything else goes on."""
    graph = shard(whole(model), tp)
    validate(graph)
    validate(pack(graph))
    body = next(op.body for _, op in graph.nodes(data="op") if op.op_type is OpType.REPEAT)
    assert body.nodes["k_proj"]["op"].n == body.nodes["v_proj"]["op"].n == 128
    assert body.nodes["q_proj"]["op"].n == 4096 / tp
    (cache,) = [op for _, op in body.nodes(data="op") if isinstance(op, KvCache)]
    (attention,) = [op for _, op in body.nodes(data="op") if isinstance(op, Attention)]
    assert cache.kv_heads == attention.kv_heads == 1 and attention.heads == 32 / tp


@pytest.mark.parametrize("model", MODELS)
def test_two_all_reduces_a_layer_one_for_the_table_and_a_gather_of_logits(model: str) -> None:
    config, graph = gs.load_model(model), shard(whole(model), 4.0)
    reduces = ops(graph, AllReduce)
    assert sum(times for *_, times in reduces) == 2 * config.num_layers + 1
    assert all(op.elems == TOKENS * config.hidden_size for _, op, _ in reduces)  # type: ignore[attr-defined]
    (gather,) = ops(graph, AllGather)
    assert gather[1].elems == 2.0 * config.vocab_size  # type: ignore[attr-defined]
    assert sum(times for *_, times in ops(graph, Collective)) == 2 * config.num_layers + 2


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b", "qwen3-8b"])
def test_sequence_parallel_trades_each_all_reduce_for_a_scatter_and_a_gather(model: str) -> None:
    """As many bytes on the wire, and norms and residuals on 1/tp of the tokens (arXiv 2205.05198)."""
    config = gs.load_model(model)
    plain, cut = shard(whole(model), 4.0), shard(whole(model), 4.0, True)
    size = TOKENS * config.hidden_size
    scatters, gathers = ops(cut, ReduceScatter), ops(cut, AllGather)
    assert not ops(cut, AllReduce)
    assert sum(times for *_, times in scatters) == 2 * config.num_layers + 1
    assert all(op.elems == size for _, op, _ in scatters)  # type: ignore[attr-defined]
    of_tokens = [(op, times) for _, op, times in gathers if op.elems == size]  # type: ignore[attr-defined]
    assert sum(times for _, times in of_tokens) == 2 * config.num_layers + 1  # the last in front of the head

    def sent(graph: nx.DiGraph) -> float:
        return float(gs.total_work(graph).message_bytes)

    assert sent(cut) == pytest.approx(sent(plain), rel=1e-12)
    body = next(op.body for _, op in cut.nodes(data="op") if op.op_type is OpType.REPEAT)
    assert body.nodes["input_layernorm"]["op"].rows == TOKENS / 4
    assert body.nodes["attn_residual"]["op"].elems == size / 4


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_one_device_is_the_whole(model: str, sequence: bool) -> None:
    graph, alone = whole(model), shard(whole(model), 1.0, sequence)
    found, expected = gs.total_work(alone), gs.total_work(graph)
    for name in ("flops", "vector_flops", "weight_bytes", "input_bytes", "write_bytes"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)
    assert found.message_bytes == found.message_hops == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tp", [1.0, 4.0])
def test_packing_conserves_flops_weights_and_what_reaches_whom(model: str, tp: float) -> None:
    graph = gs.inject(shard(whole(model), tp), None)
    packed = pack(graph)
    validate(packed)
    assert gs.total_work(packed).flops == gs.total_work(graph).flops
    assert gs.total_work(packed).weight_bytes == gs.total_work(graph).weight_bytes
    if model != "phi-3-mini":
        body = next(op.body for _, op in packed.nodes(data="op") if op.op_type is OpType.REPEAT)
        users = {
            part
            for name in body
            for v in body.successors(name)
            for part in body.edges[name, v]["parts"]
            if "qkv" in name
        }
        assert {name.rpartition(".")[2] for name in users} == {"q_proj", "k_proj", "v_proj"}
    else:
        assert set(packed) == set(graph), "weights that are one already have nothing to pack"


@pytest.mark.parametrize("tp", [2.0, 4.0])
def test_passes_leave_their_argument_alone(tp: float) -> None:
    graph = whole("llama-3.1-8b")
    before = gs.to_text(graph)
    shard(gs.inject(graph, gs.LoraConfig()), tp, True)
    pack(graph)
    assert gs.to_text(graph) == before


def test_a_projection_without_bias_is_not_packed_with_those_that_have_one() -> None:
    """As in Whisper, whose keys have no bias: the packed weights would be counted wrong."""
    graph = nx.DiGraph()
    add(graph, "x", Input(elems=64.0))
    for name, bias in (("q", True), ("k", False), ("v", True)):
        add(graph, name, Gemm(m=8.0, n=8.0, k=8.0, bias=bias, pack="qkv"), ["x"])
    packed = pack(graph)
    assert sum(op.parameters for _, op in packed.nodes(data="op")) == 3 * 64 + 16
    assert set(packed) == {"x", "qkv", "k"}


ROWS = ("m", "rows", "tokens", "sequences", "new_tokens", "query_tokens")
"""What says over how many tokens, or tokens and heads, an operation runs."""

FAMILIES = {**{name: name for name in QUICK}, **hf_configs()}


def every(graph: nx.DiGraph, ahead: str = "") -> Iterator[tuple[str, Op]]:
    """Every operation with its path; bodies of repeats once."""
    for name, op in graph.nodes(data="op"):
        yield ahead + name, op
        if isinstance(op, Repeat):
            yield from every(op.body, f"{ahead}{name}/")


def fewer_rows(before: nx.DiGraph, after: nx.DiGraph, tokens: float) -> list[str]:
    """Operations over `tokens` rows that have fewer on one device, and those over more that are left a part of one."""
    cut, found = dict(every(after)), []
    for name, op in every(before):
        for field in {f.name for f in fields(op)}.intersection(ROWS) if name in cut else ():
            had, has = getattr(op, field), getattr(cut[name], field)
            if has < min(had, tokens):
                found.append(f"{name}.{field}: {had:g} -> {has:g}")
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_devices_that_all_see_every_token_have_whole_rows_of_each(name: str) -> None:
    """What tensor parallelism cuts are weights, heads and slices of rows; tokens it leaves to sequence parallelism."""
    graph = build(gs.load_model(FAMILIES[name]), decode(1.0, 64.0), load_precision("bf16"))
    for tp in (2.0, 8.0):
        assert not fewer_rows(graph, shard(graph, tp), 1.0)


@pytest.mark.parametrize("engine", ["reference", "peft", "vllm", "sglang", "slora"])
def test_kernels_of_adapters_have_whole_rows_of_each_token(engine: str) -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["attn"])
    one, eight = (
        gs.build_graph("llama-3.1-8b", "decode", lora=lora, engine=engine, parallelism=gs.Parallelism(tp=tp))
        for tp in (1, 8)
    )
    assert not fewer_rows(one, eight, 1.0)


def test_a_gated_norm_of_eight_groups_is_cut_over_its_width() -> None:
    """Nemotron-H-56B, 16,384 wide in 8 groups: each of 8 devices has one group of every token, nothing to exchange."""
    big = {"hidden_size": 8192, "mamba_num_heads": 256, "mamba_head_dim": 64, "n_groups": 8}
    graph = build(
        gs.load_model({**hf_configs()["default:nemotron_h"], **big}), decode(1.0, 64.0), load_precision("bf16")
    )
    norms = [(name, op) for name, op in every(shard(graph, 8.0)) if "gated_norm" in name]
    assert norms and {type(op).__name__ for _, op in norms} == {"Norm"}
    assert {(op.rows, op.width, op.parameters) for _, op in norms} == {(1.0, 2048.0, 2048.0)}


@pytest.mark.parametrize("tp, exchanged", [(1.0, False), (2.0, True), (8.0, True)])
def test_devices_that_share_a_groups_mean_sum_their_squares(tp: float, exchanged: bool) -> None:
    """One group: vLLM's Mixer2RMSNormGated all-reduces one fp32 sum a token."""
    tokens = 3.0
    graph = shard(build(gs.load_model(hf_configs()["default:bamba"]), decode(tokens, 64.0), load_precision("bf16")), tp)
    validate(graph)
    found = [op for name, op in every(graph) if name.endswith("gated_norm.all_reduce")]
    assert bool(found) == exchanged
    assert all((op.payload_bytes, op.group) == (4 * tokens, tp) for op in found)  # type: ignore[attr-defined]


def test_a_head_with_vectors_of_its_own_takes_them_to_its_device() -> None:
    config = {**hf_configs()["default:cohere"], "use_qk_norm": True}
    graph = build(gs.load_model(config), decode(1.0, 64.0), load_precision("bf16"))
    sizes = [{op.parameters for name, op in every(g) if name.endswith("q_norm")} for g in (graph, shard(graph, 8.0))]
    assert sizes == [{64 * 128.0}, {8 * 128.0}]


def test_a_value_that_is_cut_over_features_and_over_tokens_has_a_node_for_each() -> None:
    row = {"op": "gemm", "k": 64, "n": 64, "split": "row"}
    nodes = [
        {"name": "first", **row, "inputs": ["input"]},
        {"name": "sum", "op": "add", "inputs": ["input", "first"]},
        {"name": "second", **row, "inputs": ["first"]},
        {"name": "end", "op": "add", "inputs": ["sum", "second"]},
    ]
    model = read_model(
        {"hidden_size": 64, "vocab_size": 128, "blocks": {"own": nodes}, "layers": [{"repeat": 2, "block": "own"}]},
        "own.yaml",
    )
    cut = shard(build(model, prefill(2.0, 8.0), load_precision("bf16")), 2.0, True)
    validate(cut)
    [body] = [op.body for _, op in cut.nodes(data="op") if isinstance(op, Repeat)]
    scatters = {name for name, op in body.nodes(data="op") if isinstance(op, ReduceScatter)}
    assert scatters == {"first.reduce_scatter", "first.reduce_scatter_sharded", "second.reduce_scatter"}


@pytest.mark.parametrize("groups", [1, 4])
def test_a_norm_of_a_users_block_is_sliced_as_its_groups_say(groups: int) -> None:
    nodes = [
        {"name": "up", "op": "gemm", "k": 64, "n": 256, "split": "column"},
        {"name": "inner", "op": "norm", "width": 256, "groups": groups},
        {"name": "down", "op": "gemm", "k": 256, "n": 64, "split": "row"},
    ]
    model = read_model(
        {"hidden_size": 64, "vocab_size": 128, "blocks": {"own": nodes}, "layers": [{"repeat": 2, "block": "own"}]},
        "own.yaml",
    )
    cut = shard(build(model, prefill(2.0, 8.0), load_precision("bf16")), 4.0)
    validate(cut)
    found = dict(every(cut))
    (norm,) = [op for name, op in found.items() if name.endswith("/inner")]
    assert (norm.rows, norm.width) == (16.0, 64.0)
    assert any(name.endswith("/inner.all_reduce") for name in found) == (groups == 1)
