"""Schemes of tensor parallelism for adapters, against the closed forms of the engines that have them."""

from __future__ import annotations

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.profile import load_profile
from graphsim.lora.schemes import SCHEMES
from graphsim.ops import AllGather, AllReduce, Collective, LoraA, LoraAdd, LoraB

MODEL, TP, BATCH, RANK, HIDDEN, LAYERS = "llama-2-7b", 4, 3, 16, 4096, 32
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def graph_of(engine: object = "reference", tp: float = TP, **fields: object) -> nx.DiGraph:
    fields = {"rank": RANK, "target_modules": ATTENTION} | fields
    return gs.build_graph(
        MODEL, "decode", batch=BATCH, lora=gs.LoraConfig(**fields), parallelism=gs.Parallelism(tp=tp), engine=engine
    )


def nodes(graph: nx.DiGraph, kind: type) -> list:
    """Every operation of a kind, as often as it runs."""
    return [op for _, op, times in walk(graph) for _ in range(int(times)) if isinstance(op, kind)]


def extra(graph: nx.DiGraph) -> list[Collective]:
    """Collectives that the model alone does not have."""
    alone = gs.build_graph(MODEL, "decode", batch=BATCH, parallelism=gs.Parallelism(tp=TP))
    left = [(type(op), op.elems) for op in nodes(alone, Collective)]
    found = []
    for op in nodes(graph, Collective):
        if (type(op), op.elems) in left:
            left.remove((type(op), op.elems))
        else:
            found.append(op)
    return found


def moved(ops: list[Collective]) -> float:
    """Elements that each device sends in rings: 2 (N - 1) / N of an all-reduce's, half of it for an all-gather."""
    ring = (TP - 1) / TP
    return sum(ring * op.elems * (2 if isinstance(op, AllReduce) else 1) for op in ops)


@pytest.mark.parametrize("scheme", ["vllm", "sglang-triton-v2", "peft-dtensor"])
def test_pairs_on_partial_sums_exchange_nothing(scheme: str) -> None:
    graph = graph_of(tp_scheme=scheme)
    assert not extra(graph)
    rows = [op for op in nodes(graph, LoraB) if op.role.startswith("o_proj")]
    assert all(op.n == HIDDEN and op.k == RANK for op in rows)


@pytest.mark.parametrize("scheme", ["s-lora", "fully-sharded"])
def test_sharded_pairs_move_what_s_lora_states(scheme: str) -> None:
    """S-LoRA, section 6: three all-gathers and one all-reduce, 5 (N - 1) T r / N in all, 5 r / 2 h of the base's."""
    graph = graph_of(tp_scheme=scheme)
    found = extra(graph)
    kinds = [type(op) for op in found]
    assert (kinds.count(AllGather), kinds.count(AllReduce)) == (3 * LAYERS, LAYERS)
    assert moved(found) == pytest.approx(LAYERS * 5 * (TP - 1) * BATCH * RANK / TP)
    base = LAYERS * 2 * (TP - 1) * BATCH * HIDDEN / TP
    assert moved(found) / base == pytest.approx(5 * RANK / (2 * HIDDEN))


def test_sharded_pairs_divide_every_flop() -> None:
    total = sum(float(op.work().flops) for op in nodes(graph_of(tp_scheme="s-lora"), LoraA | LoraB))
    assert total == pytest.approx(LAYERS * 4 * 2 * BATCH * RANK * 2 * HIDDEN / TP)


@pytest.mark.parametrize("scheme", ["sglang", "peft-megatron"])
def test_reduced_pairs_complete_the_narrow_result_of_row_layers(scheme: str) -> None:
    found = extra(graph_of(tp_scheme=scheme))
    assert [type(op) for op in found] == [AllReduce] * LAYERS
    assert all(op.elems == BATCH * RANK for op in found)


def test_a_reduced_pair_is_added_behind_the_bases_all_reduce() -> None:
    body = graph_of(tp_scheme="sglang").nodes["layers_0_31"]["op"].body
    assert set(body.predecessors("o_proj.lora_add")) == {"o_proj.all_reduce", "o_proj.lora_b"}


def test_megatron_gathers_the_full_width_of_row_layers() -> None:
    found = extra(graph_of(tp_scheme="megatron"))
    sizes = sorted((type(op).__name__, op.elems) for op in found)
    narrow, wide = BATCH * RANK, BATCH * HIDDEN
    each = [("AllGather", narrow)] * 3 + [("AllGather", wide)] + [("AllReduce", narrow)]
    assert sizes == sorted(each * LAYERS)


def beyond_plain(scheme: str, engine: str, target: str) -> list[tuple[str, float, float]]:
    """Collectives of one layer that DoRA has and the plain adapter has not: kind, elements, bytes of an element."""

    def found(variant: str) -> list[tuple[str, float, float]]:
        graph = graph_of(engine, tp_scheme=scheme, variant=variant, target_modules=[target], lora_dtype="fp32")
        body = graph.nodes["layers_0_31"]["op"].body
        ops = [op for _, op in body.nodes(data="op") if isinstance(op, Collective)]
        return [(type(op).__name__, float(op.elems), op.activations.bytes) for op in ops]

    left = found("dora")
    for one in found("lora"):
        left.remove(one)
    return sorted(left)


@pytest.mark.parametrize("engine", ["reference", "peft"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_doras_norm_sums_squares_where_the_base_is_cut_over_its_inputs(scheme: str, engine: str) -> None:
    """In every forward: one sum of n squares in the factors' format; cut factors are gathered for B A first."""
    cut = scheme in ("fully-sharded", "s-lora", "megatron")
    factor = [("AllGather", float(RANK * HIDDEN), 4.0)] if cut else []
    assert beyond_plain(scheme, engine, "q_proj") == factor
    assert beyond_plain(scheme, engine, "o_proj") == [*factor, ("AllReduce", float(HIDDEN), 4.0)]


def test_the_sum_stands_between_the_norm_and_the_scaling_and_takes_time() -> None:
    graph = graph_of("peft", variant="dora", target_modules=["o_proj"])
    body = graph.nodes["layers_0_31"]["op"].body
    assert "o_proj.dora_norm" in body.pred["o_proj.dora_norm.all_reduce"]
    assert "o_proj.dora_norm.all_reduce" in body.pred["o_proj.dora_scale"]
    assert "o_proj.dora_norm" not in body.pred["o_proj.dora_scale"]
    lora = gs.LoraConfig(rank=RANK, variant="dora", target_modules=["o_proj"])
    where = gs.Parallelism(tp=TP)
    frame = gs.simulate(
        MODEL, "a100-sxm-80gb", BATCH, 64, 2, lora=lora, engine="peft", parallelism=where
    ).decode.to_frame()
    assert frame[frame.name.str.endswith("o_proj.dora_norm.all_reduce")].latency_s.gt(0).all()


def test_peft_sums_the_squares_of_every_adapter_in_the_format_it_keeps() -> None:
    """PEFT 0.21 takes the norm of each adapter of the batch by itself, its factors in fp32."""
    graph = graph_of("peft", variant="dora", target_modules=["o_proj"], active_adapters=3)
    reduce = graph.nodes["layers_0_31"]["op"].body.nodes["o_proj.dora_norm.all_reduce"]["op"]
    assert (reduce.elems, reduce.activations.bytes) == (3 * HIDDEN, 4.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_head_that_every_device_adds_to_whole_is_scaled_by_all_norms(scheme: str) -> None:
    graph = graph_of(tp_scheme=scheme, variant="dora", target_modules=["lm_head"])
    scale = graph.nodes["lm_head.dora_scale"]["op"]
    whole = SCHEMES[scheme].whole_head
    assert scale.n == (32000 if whole else 32000 / TP)
    assert ("lm_head.dora_norm.all_gather" in graph) == whole


def test_block_diagonal_factors_exchange_nothing_and_divide_every_flop() -> None:
    """BD-LoRA, arXiv 2510.23346: a device holds the blocks of its slice; the other factor is cut over ranks."""
    graph = graph_of(variant="bd-lora", blocks=TP)
    assert not extra(graph)
    each = 2 * BATCH * RANK * HIDDEN
    assert sum(float(op.work().flops) for op in nodes(graph, LoraA | LoraB)) == pytest.approx(
        LAYERS * 4 * (each / TP + each / TP / TP)
    )
    assert all(op.blocks == 1 for op in nodes(graph, LoraA | LoraB))


@pytest.mark.parametrize("engine, scheme", [("vllm", "vllm"), ("sglang", "sglang"), ("slora", "s-lora")])
def test_engines_have_a_scheme_of_their_own_and_take_another(engine: str, scheme: str) -> None:
    assert load_profile(engine).tensor_parallel == scheme
    own = moved(extra(graph_of(engine)))
    assert own == pytest.approx(moved(extra(graph_of(engine, tp_scheme=scheme))))
    assert (own > 0) == (scheme != "vllm")
    assert moved(extra(graph_of(engine, tp_scheme="s-lora"))) > 0


def test_fused_kernels_behind_the_all_reduce_take_the_bases_inputs() -> None:
    body = graph_of("sglang").nodes["layers_0_31"]["op"].body
    assert "attention" in set(body.predecessors("o_proj.lora_shrink"))
    assert set(body.predecessors("o_proj.lora_expand")) == {"o_proj.all_reduce", "o_proj.lora_shrink.all_reduce"}
    assert list(body.successors("o_proj.lora_expand")) == ["post_attention_layernorm"]  # which adds the residual
    assert not nodes(graph_of("sglang"), LoraAdd)


def test_fully_sharded_kernels_exchange_their_32_bit_intermediate() -> None:
    """vLLM: one all-gather for the three slices of qkv and one all-reduce, of slices * T * R * 4 bytes in all."""
    graph = graph_of("vllm", fully_sharded_loras=True, target_modules=ATTENTION)
    body = graph.nodes["layers_0_31"]["op"].body
    gather, reduce = (
        body.nodes[f"{name}"]["op"] for name in ("qkv_proj.lora_shrink.all_gather", "o_proj.lora_shrink.all_reduce")
    )
    assert gather.elems * gather.activations.bytes == 3 * BATCH * RANK * 4
    assert reduce.elems * reduce.activations.bytes == BATCH * RANK * 4
    assert body.nodes["qkv_proj.lora_shrink"]["op"].n == 3 * RANK / TP


@pytest.mark.parametrize("engine", ["reference", "vllm"])
def test_fully_sharded_devices_each_make_and_add_their_part_of_every_row(engine: str) -> None:
    """Behind a row-parallel linear, B's outputs are dealt out: all devices together do what one does alone."""
    lora = {"target_modules": ["o_proj"], "fully_sharded_loras": True}
    kinds = ("o_proj.lora_b", "o_proj.lora_add") if engine == "reference" else ("o_proj.lora_expand",)
    for name in kinds:
        alone, shared = (
            graph_of(engine, tp=tp, **lora).nodes["layers_0_31"]["op"].body.nodes[name]["op"] for tp in (1, TP)
        )
        assert shared.work().flops == alone.work().flops / TP
        assert getattr(shared, "rows", BATCH) == BATCH


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sp", [1, TP])
def test_every_scheme_gives_an_estimate_and_costs_nothing_extra_on_one_device(scheme: str, sp: int) -> None:
    lora = gs.LoraConfig(rank=RANK, tp_scheme=scheme)
    plain = gs.LoraConfig(rank=RANK)
    asked = {"batch": BATCH, "input_tokens": 64, "output_tokens": 8}
    found = gs.simulate(
        MODEL, "h100-sxm", lora=lora, parallelism=gs.Parallelism(tp=TP, sp=sp), **asked, engine="reference"
    )
    assert (
        found.tpot_s
        > gs.simulate(MODEL, "h100-sxm", parallelism=gs.Parallelism(tp=TP, sp=sp), **asked, engine="reference").tpot_s
    )
    alone = gs.simulate(MODEL, "h100-sxm", lora=lora, **asked, engine="reference")
    assert alone.tpot_s == pytest.approx(
        gs.simulate(MODEL, "h100-sxm", lora=plain, **asked, engine="reference").tpot_s, rel=1e-12
    )


def test_wrong_schemes_are_named() -> None:
    with pytest.raises(gs.ConfigError, match=r"tp_scheme = 's-lorra' is not known; did you mean 's-lora'"):
        gs.LoraConfig(tp_scheme="s-lorra")
    with pytest.raises(gs.ConfigError, match="fully_sharded_loras"):
        gs.LoraConfig(tp_scheme="sglang", fully_sharded_loras=True)
    with pytest.raises(gs.ConfigError, match="rank = 6 .* 's-lora' and tp = 4; allowed: a multiple of 4"):
        graph_of(rank=6, tp_scheme="s-lora")
    with pytest.raises(gs.ConfigError, match="blocks = 2 .* 'bd-lora' and tp = 4"):
        graph_of(variant="bd-lora", blocks=2)
    with pytest.raises(gs.ConfigError, match="'megatron' is not allowed with engine 'vllm'"):
        graph_of("vllm", tp_scheme="megatron")
