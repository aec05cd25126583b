"""Variants of LoRA as nodes: closed forms of their work, and their shape in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.variants import known
from graphsim.ops.bitsandbytes import Dequantise
from graphsim.ops.lora_variants import DoraNorm, DoraScale, GroupPool, VectorScale
from tests.lora.variant_laws import each_variant

TARGETS = ["q_proj", "down_proj"]
HIDDEN, WIDE = 4096, 11008


def ops(kind: type, **lora: Any) -> dict[str, Any]:
    config = gs.LoraConfig(rank=16, target_modules=TARGETS, **lora)
    graph = gs.build_graph("llama-2-7b", "prefill", 2, 100, lora=config)
    return {op.role.partition(".")[0]: op for _, op, _ in walk(graph) if isinstance(op, kind)}


def test_dora_passes_over_each_weight_in_every_forward_whatever_the_tokens() -> None:
    few = ops(DoraNorm, variant="dora")
    assert set(few) == {"q_proj", "down_proj"}
    work = few["down_proj"].work()
    assert work.flops == 2 * WIDE**2 * 16 + 2 * WIDE * 16 * HIDDEN
    assert work.weight_bytes >= 2 * WIDE * HIDDEN
    one = gs.build_graph("llama-2-7b", "decode", lora=gs.LoraConfig(rank=16, target_modules=TARGETS, variant="dora"))
    again = next(op for _, op, _ in walk(one) if isinstance(op, DoraNorm) and op.role.startswith("down_proj"))
    assert again.work().flops == work.flops and again.work().memory_bytes == work.memory_bytes


def test_dora_slows_generation_manyfold_as_it_was_measured() -> None:
    """ms-swift, 7B, all linears, unmerged: 4.3 tokens/s with DoRA, 18.1 with LoRA; batch 1."""
    lora = gs.LoraConfig(rank=8, target_modules="all-linear")
    dora = gs.LoraConfig(rank=8, target_modules="all-linear", variant="dora")
    plain, normed = (gs.simulate("llama-2-7b", "a100-sxm-80gb", 1, 64, 16, lora=x, engine="peft") for x in (lora, dora))
    assert 2.5 < normed.tpot_s / plain.tpot_s < 7.0


def test_dora_scales_behind_the_add_and_needs_memory_for_the_temporary() -> None:
    assert ops(DoraScale, variant="dora")["q_proj"].rows == 200
    plain = gs.simulate("llama-2-7b", "a100-sxm-80gb", lora=gs.LoraConfig(rank=8), engine="reference")
    dora = gs.simulate("llama-2-7b", "a100-sxm-80gb", lora=gs.LoraConfig(rank=8, variant="dora"), engine="reference")
    assert dora.memory.activations_bytes > plain.memory.activations_bytes + WIDE * HIDDEN


def test_vera_trains_a_vector_per_factor_and_shares_the_factors() -> None:
    lora = gs.LoraConfig(rank=256, target_modules=["q_proj", "v_proj"], variant="vera")
    assert gs.lora_parameters("llama-2-7b", lora) == 32 * 2 * (256 + HIDDEN)
    vectors = ops(VectorScale, variant="vera")
    assert vectors["down_proj"].width in (16, HIDDEN)


def test_vera_parameters_equal_those_that_peft_trained() -> None:
    """peft's method comparison: Llama-3.2-3B, q and v, rank 256: 129,024 trainable (lora_published.csv)."""
    lora = gs.LoraConfig(rank=256, target_modules=["q_proj", "v_proj"], variant="vera")
    assert gs.lora_parameters("llama-3.2-3b", lora) == 129_024


def test_qa_lora_pools_the_inputs_and_shrinks_the_first_factor() -> None:
    pools = ops(GroupPool, variant="qa-lora", group_size=32)
    assert pools["down_proj"].out_elems == 200 * WIDE / 32
    lora = gs.LoraConfig(rank=16, target_modules=TARGETS, variant="qa-lora", group_size=32)
    expected = 16 * (HIDDEN / 32 + HIDDEN + WIDE / 32 + HIDDEN)
    assert gs.lora_parameters("llama-2-7b", lora) == 32 * expected


def test_a_block_diagonal_factor_does_one_in_blocks_of_the_work() -> None:
    graph = gs.build_graph(
        "llama-2-7b", "decode", lora=gs.LoraConfig(rank=16, target_modules=TARGETS, variant="bd-lora", blocks=4)
    )
    flops = {op.role: op.work().flops for _, op, _ in walk(graph) if ".lora_" in op.role}
    assert flops["q_proj.lora_a"] == 4 * flops["q_proj.lora_b"]
    assert flops["down_proj.lora_a"] == 2 * WIDE * 16 / 4


def test_alora_works_on_the_tokens_behind_its_invocation_only() -> None:
    def rows(phase: str) -> set[float]:
        lora = gs.LoraConfig(rank=16, target_modules=TARGETS, variant="alora", invocation_tokens=10)
        graph = gs.build_graph("llama-2-7b", phase, 2, 100, lora=lora)
        return {float(op.m) for _, op, _ in walk(graph) if op.op_type is gs.OpType.GEMM_LORA_A}

    assert rows("prefill") == {20.0}
    assert rows("decode") == {2.0}


def test_four_bit_weights_are_widened_for_many_rows_and_read_as_they_are_for_few() -> None:
    linear = 32 * (4 * HIDDEN**2 + 3 * HIDDEN * WIDE)

    def widened(batch: int) -> float:
        graph = gs.build_graph("llama-2-7b", "decode", batch, precision="nf4")
        return sum(op.work().write_bytes * times for _, op, times in walk(graph) if isinstance(op, Dequantise))

    assert widened(1) == 0
    assert widened(512) == 2 * linear


def test_double_quantisation_saves_what_was_measured() -> None:
    """litgpt: 0.31, 0.60 GB less for 7B and 13B with nf4-dq than with nf4."""
    for model, measured in (("llama-2-7b", 0.31e9), ("llama-2-13b", 0.60e9)):
        plain, double = (
            gs.simulate(model, "a100-sxm-80gb", precision=p, engine="reference").memory.weights_bytes
            for p in ("nf4", "nf4_dq")
        )
        assert plain - double == pytest.approx(measured, rel=0.05)


GROUPS = [gs.Parallelism(), gs.Parallelism(tp=4), pytest.param(gs.Parallelism(pp=2), marks=pytest.mark.slow)]


@pytest.mark.parametrize("variant", each_variant())
@pytest.mark.parametrize("parallelism", GROUPS)
def test_variants_make_valid_graphs_and_rank_zero_is_the_base(variant: str, parallelism: gs.Parallelism) -> None:
    def config(rank: int) -> gs.LoraConfig:
        return gs.LoraConfig(rank=rank, target_modules="all-linear", variant=variant, blocks=4, invocation_tokens=8)

    gs.validate(gs.build_graph("llama-3.1-8b", "prefill", 2, 64, parallelism=parallelism, lora=config(16)))
    found = gs.simulate("llama-3.1-8b", "h100-sxm", 4, 64, 8, parallelism, config(16), engine="reference")
    base = gs.simulate("llama-3.1-8b", "h100-sxm", 4, 64, 8, parallelism, engine="reference")
    assert found.latency_s >= base.latency_s
    assert found.latency_s > base.latency_s or known()[variant].copies  # which run in the place of the model's own
    ranks = gs.simulate(
        "llama-3.1-8b", "h100-sxm", np.array([4, 4]), 64, 8, parallelism, config(16), engine="reference"
    )
    assert ranks.latency_s[0] == pytest.approx(found.latency_s, rel=1e-4)


@pytest.mark.parametrize("variant", each_variant())
@pytest.mark.parametrize("tp", [1, 2])
def test_an_adapter_of_rank_zero_is_no_work(variant: str, tp: int) -> None:
    asked: dict[str, Any] = {"batch": 2, "input_tokens": 64, "parallelism": gs.Parallelism(tp=tp)}
    lora = gs.LoraConfig(rank=0, target_modules="all-linear", variant=variant, blocks=2)
    found, base = (gs.total_work(gs.build_graph("llama-3.1-8b", lora=x, **asked)) for x in (lora, None))
    for name in ("flops", "vector_flops", "memory_bytes", "message_bytes", "message_hops"):
        assert getattr(found, name) == pytest.approx(getattr(base, name), rel=1e-12), name


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variant": "dorra"}, "did you mean 'dora'"),
        ({"variant": "alora", "strategy": "merge"}, "'merge' is not allowed with variant 'alora'"),
        ({"variant": "qa-lora", "group_size": 0}, "group_size = 0"),
        ({"variant": "bd-lora", "blocks": -1}, "blocks = -1"),
    ],
)
def test_a_senseless_variant_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.LoraConfig(**fields)
    assert said in str(error.value)


@pytest.mark.parametrize("variant", [name for name, kind in known().items() if kind.unmerged])
def test_a_merge_that_cannot_be_says_why(variant: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.LoraConfig(variant=variant, strategy="merge")
    said = f"lora.strategy = 'merge' is not allowed with variant '{variant}', since {known()[variant].unmerged}; "
    assert str(error.value) == said + "allowed: dynamic"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_engines_refuse_what_their_kernels_do_not_know(engine: str) -> None:
    for variant, instead in (("dora", "peft or reference, or strategy merge"), ("alora", "peft or reference")):
        with pytest.raises(gs.InfeasibleError) as error:
            gs.simulate("gpt-2", "l4", lora=gs.LoraConfig(variant=variant), engine=engine)
        assert str(error.value).startswith(f"lora.variant = {variant} is not allowed with engine '{engine}'")
        assert str(error.value).endswith(instead)


def test_peft_configs_say_which_variant_they_are() -> None:
    base = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    kinds = {
        "dora": {"use_dora": True}, "rslora": {"use_rslora": True}, "qa-lora": {"use_qalora": True},
        "alora": {"alora_invocation_tokens": [1, 2]}, "bd-lora": {"use_bdlora": {"nblocks": 4}}, "lora": {},
    }  # fmt: skip
    for variant, fields in kinds.items():
        assert gs.LoraConfig.from_peft(base | fields).variant == variant
    for variant, kind in known().items():
        if kind.peft_flag:
            assert gs.LoraConfig.from_peft(base | {kind.peft_flag: True}).variant == variant


EXPERTS = "mixtral-8x7b"


def expert_ops(engine: str = "reference", **lora: Any) -> dict[str, Any]:
    graph = gs.build_graph(EXPERTS, "decode", batch=4, lora=gs.LoraConfig(rank=8, **lora), engine=engine)
    return {op.role: op for _, op, _ in walk(graph) if op.role.startswith("expert_")}


def test_peft_writes_every_experts_changed_weight_in_every_forward() -> None:
    """PEFT 0.21 parametrises the whole tensor: 2 E n r k flops, W read and W' written, 16-bit temporaries between."""
    delta = expert_ops("peft")["expert_down_proj.lora_delta"]
    assert not delta.once and not any("lora_a" in role for role in expert_ops("peft"))
    assert delta.work().flops == 2 * 8 * 4096 * 8 * 14336
    assert delta.work().memory_bytes > 6 * 8 * 4096 * 14336 * 2
    slow, fast = (
        gs.simulate(EXPERTS, "h200-sxm", 4, 64, 8, lora=gs.LoraConfig(rank=8), engine=engine).tpot_s
        for engine in ("peft", "reference")
    )
    assert slow > 3 * fast


def test_what_peft_writes_again_is_counted_as_adapter_memory_all_the_same() -> None:
    memory = {
        engine: gs.simulate(EXPERTS, "h200-sxm", 1, 64, 8, lora=gs.LoraConfig(rank=8), engine=engine).memory
        for engine in ("peft", "reference")
    }
    assert memory["peft"].adapters_bytes == 2 * memory["reference"].adapters_bytes  # PEFT keeps 16-bit factors in fp32
    assert memory["peft"].activations_bytes > memory["reference"].activations_bytes + 2 * 8 * 4096 * 14336


def test_experts_that_share_outer_factors_hold_one_where_the_residual_stream_is() -> None:
    each, shared = expert_ops(), expert_ops(shared_outer_factors=True)
    for role in ("expert_gate_up_proj.lora_a", "expert_down_proj.lora_b"):
        assert shared[role].parameters * 8 == each[role].parameters
        assert shared[role].work().weight_bytes < each[role].work().weight_bytes
        assert shared[role].work().flops == each[role].work().flops
    for role in ("expert_gate_up_proj.lora_b", "expert_down_proj.lora_a"):
        assert shared[role].parameters == each[role].parameters


def test_what_variants_add_on_experts_is_cut_as_their_weights_are() -> None:
    def cut(parallelism: gs.Parallelism, variant: str) -> dict[str, Any]:
        lora = gs.LoraConfig(rank=8, variant=variant, group_size=16)
        graph = gs.build_graph(EXPERTS, "decode", batch=4, lora=lora, parallelism=parallelism)
        gs.validate(graph, "lowered")
        return {op.role: op for _, op, _ in walk(graph) if op.role.startswith("expert_")}

    rows, both = 4 * 2, gs.Parallelism(tp=4, ep=2)
    for parallelism, groups in ((gs.Parallelism(tp=2), 1), (both, 2)):
        vectors = cut(parallelism, "vera")
        assert vectors["expert_gate_up_proj.lora_d"].elems == rows / groups * 16
        assert vectors["expert_gate_up_proj.lora_scale"].width == 2 * 14336 / 2
        assert vectors["expert_down_proj.lora_scale"].elems == rows / groups * 4096
        pools = cut(parallelism, "qa-lora")
        for name, inputs in (("gate_up", 4096), ("down", 14336 / 2)):
            pool, down = (pools[f"expert_{name}_proj.lora_{part}"] for part in ("pool", "a"))
            assert (pool.m, pool.k) == (rows / groups, inputs)
            assert pool.out_elems == down.m * down.k


def test_peft_writes_experts_and_leaves_nothing_of_the_chain_behind() -> None:
    assert not {role for role in expert_ops("peft", variant="qa-lora") if "lora_" in role} - {
        "expert_gate_up_proj.lora_delta", "expert_down_proj.lora_delta"
    }  # fmt: skip


def test_mixed_ranks_work_at_their_mean_and_pad_to_the_largest() -> None:
    mixed = gs.LoraConfig(mixed_ranks=[64, 32, 16, 8], active_adapters=4)
    assert mixed.rank == 30 and mixed.largest_rank == 64

    def flops(lora: gs.LoraConfig, engine: str) -> float:
        graph = gs.build_graph("llama-2-7b", "decode", batch=8, lora=lora, engine=engine)
        return sum(op.work().flops * n for _, op, n in walk(graph) if "lora_" in op.role)

    plain = gs.LoraConfig(rank=64, active_adapters=4)
    assert flops(mixed, "slora") == pytest.approx(30 / 64 * flops(plain, "slora"))
    assert flops(mixed, "vllm") == flops(plain, "vllm")
    with pytest.raises(gs.ConfigError, match="mixed_ranks"):
        gs.LoraConfig(mixed_ranks=[8, -1])


def test_peft_keeps_veras_vectors_and_scales_by_nothing_else() -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj"], variant="vera")
    graph = gs.build_graph("llama-2-7b", "decode", lora=lora, engine="peft")
    vectors = {op.role: op for _, op, _ in walk(graph) if op.role.startswith("q_proj.lora_") and op.parameters}
    assert set(vectors) == {"q_proj.lora_d", "q_proj.lora_scale"}
    memory = gs.simulate("llama-2-7b", "h100-sxm", lora=lora, engine="peft").memory
    shared = 4 * 16 * (HIDDEN + HIDDEN)  # in fp32, once for all modules
    assert memory.adapters_bytes == 2 * 32 * (16 + HIDDEN) + shared
