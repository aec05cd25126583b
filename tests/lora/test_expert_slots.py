"""What engines reserve for adapters on experts, by hand from the shapes of vLLM's `lora/layers/fused_moe.py`.

FusedMoEWithLoRA: w1 and w3 apart, A 2 x (r, H) and B 2 x (I, r), and w2's A (r, I) and B (H, r), for each expert.
FusedMoE3DWithLoRA: one slice, A (r, H) and B (2 I, r), and w2's. Both wrap experts whatever the adapter targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.injection import lora_parameters_of
from graphsim.lora.profile import load_profile

BYTES = 2


@dataclass(frozen=True)
class Shape:
    """A mixture's sizes, by its published config.json; rest: elements per rank of all other slots."""

    layers: int
    experts: int
    hidden: int
    inner: int
    attention: int
    ends: int = 0
    fused: bool = False

    def expert(self, tp: int = 1, sharded: bool = False) -> float:
        """Elements per rank of one expert's pairs on one of tp devices."""
        slices = 1 if self.fused else 2
        a1, b1 = slices * self.hidden, 2 * self.inner / tp
        a2, b2 = self.inner / tp, self.hidden
        return (a1 + b2) / (tp if sharded else 1) + b1 + a2


SHAPES = {
    "qwen3-30b-a3b": Shape(48, 128, 2048, 768, attention=3 * 2048 + 4096 + 2 * 512 + 4096 + 2048 + 2048 + 128),
    "gpt-oss-120b": Shape(36, 128, 2880, 2880, attention=3 * 2880 + 4096 + 2 * 512 + 4096 + 2880, fused=True),
    "mixtral-8x7b": Shape(
        32, 8, 4096, 14336, attention=3 * 4096 + 4096 + 2 * 1024 + 4096 + 4096 + 4096 + 8, ends=2 * (32000 + 4096)
    ),
}
"""q, k, v, o and the router of each layer, which is no linear of gpt-oss; Mixtral has slots at its ends too."""


def slot_bytes(model: str, targets: list[str], **more: object) -> float:
    lora = gs.LoraConfig(rank=16, target_modules=targets, max_loras=1, max_lora_rank=16, **more)  # type: ignore[arg-type]
    return float(gs.footprint(model, "h200-sxm", lora, engine="vllm").slot_bytes)


@pytest.mark.parametrize("targets", [["attn"], ["attn", "ffn"]])
@pytest.mark.parametrize("model", SHAPES)
def test_vllm_has_slots_for_experts_whatever_the_adapter_targets(model: str, targets: list[str]) -> None:
    shape = SHAPES[model]
    elements = shape.layers * (shape.attention + shape.experts * shape.expert()) + shape.ends
    assert slot_bytes(model, targets) == pytest.approx(16 * BYTES * elements)


def test_the_slots_of_the_audit() -> None:
    """1,691 MB, 2.15 GB and 0.49 GB; 113.2 million parameters of Mixtral's experts at rank 8."""
    assert slot_bytes("qwen3-30b-a3b", ["attn"]) == pytest.approx(1691e6, rel=1e-3)
    assert slot_bytes("gpt-oss-120b", ["attn"]) == pytest.approx(2.15e9, rel=3e-3)
    assert slot_bytes("mixtral-8x7b", ["attn"]) == pytest.approx(0.49e9, rel=8e-3)
    table = gs.adapter_footprint("mixtral-8x7b", gs.LoraConfig(rank=8, target_modules=["ffn"]), engine="vllm")
    assert table[table.module.str.startswith("expert_")].parameters.sum() == pytest.approx(113.2e6, rel=1e-3)


@pytest.mark.parametrize(
    ("tp", "ep", "sharded"), [(2, 1, False), (4, 4, False), (4, 2, False), (2, 1, True), (8, 1, True)]
)
@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "gpt-oss-120b"])
def test_devices_hold_their_experts_and_their_share_of_cut_factors(model: str, tp: int, ep: int, sharded: bool) -> None:
    """Experts are dealt out to ep groups; within one, w13's B and w2's A are cut, fully sharded the others too."""
    shape, inner = SHAPES[model], tp // ep
    lora = gs.LoraConfig(
        rank=16, target_modules=["attn", "ffn"], max_loras=1, max_lora_rank=16, fully_sharded_loras=sharded
    )
    held = gs.Deployment(
        model, "h200-sxm", lora=lora, engine="vllm", parallelism=gs.Parallelism(tp=tp, ep=ep)
    ).stored.decode(1, 1)
    found = sum(op.parameters * n for _, op, n in walk(held) if op.adapter and op.role.startswith("expert_"))
    right = 16 * shape.layers * shape.experts / ep * shape.expert(inner, sharded)
    assert found == pytest.approx(right)


DEEPSEEK = {
    "model_type": "deepseek_v3", "num_hidden_layers": 4, "first_k_dense_replace": 1, "hidden_size": 256,
    "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 24, "intermediate_size": 512, "moe_intermediate_size": 128,
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 2, "vocab_size": 1000,
}  # fmt: skip
"""DeepSeek-V3's layout, small: a dense layer, then three with experts and two shared ones; latent attention."""


def latent_attention() -> int:
    """Elements per rank of one layer: q_a, q_b, kv_a, kv_b and o."""
    q_a, q_b = 256 + 96, 96 + 8 * (32 + 16)
    kv_a, kv_b = 256 + 64 + 16, 64 + 8 * (32 + 24)
    return q_a + q_b + kv_a + kv_b + 8 * 24 + 256


def gated_mlp(width: int) -> int:
    """Of gate and up, a pair each, and of down."""
    return 2 * (256 + width) + width + 256


@pytest.mark.parametrize("targets", [["attn"], ["attn", "ffn"], "all-linear"])
def test_vllm_has_slots_for_dense_and_shared_mlps_beside_experts(targets: list[str] | str) -> None:
    """Every LinearBase has, also where PEFT's all-linear passes it over: of a dense layer, of shared experts."""
    experts = 16 * gated_mlp(128) + gated_mlp(2 * 128) + 256 + 16
    elements = 4 * latent_attention() + gated_mlp(512) + 3 * experts
    lora = gs.LoraConfig(rank=16, target_modules=targets, max_loras=1, max_lora_rank=16)
    found = gs.footprint(DEEPSEEK, "h200-sxm", lora, engine="vllm").slot_bytes
    assert found == pytest.approx(16 * BYTES * elements)


@pytest.mark.parametrize("engine", ["reference", "peft", "sglang"])
def test_what_latent_attention_absorbs_when_it_generates_lies_in_memory_too(engine: str) -> None:
    """kv_b_proj is no product of a step that generates, but its factors were trained, are loaded and merged."""
    lora = gs.LoraConfig(rank=16, target_modules=["attn"])
    size = (4 if engine == "peft" else BYTES) * 16 * 4 * latent_attention()
    assert gs.lora_parameters(DEEPSEEK, lora) == 16 * 4 * latent_attention()
    whole = gs.simulate(DEEPSEEK, "h200-sxm", 2, 64, 2, lora=lora, engine=engine)
    assert whole.memory.adapters_bytes == pytest.approx(size)
    assert gs.footprint(DEEPSEEK, "h200-sxm", lora, engine=engine).slot_bytes == pytest.approx(size)
    table = gs.adapter_footprint(DEEPSEEK, lora, engine=engine)
    down = {"fused_qkv_a_proj"} if engine == "sglang" else {"q_a_proj", "kv_a_proj_with_mqa"}
    assert set(table.module) == {*down, "q_b_proj", "kv_b_proj", "o_proj"}
    assert table.bytes.sum() == pytest.approx(size)
    tensors = gs.lifecycle(DEEPSEEK, "h200-sxm", lora, engine=engine).tensors
    assert tensors == 4 * 2 * 5


def test_simulate_and_footprint_reserve_the_same() -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["attn"], max_loras=3, max_lora_rank=32)
    for model in ("mixtral-8x7b", "gpt-oss-20b"):
        slots = gs.footprint(model, "h200-sxm", lora, engine="vllm")
        whole = gs.simulate(model, "h200-sxm", 2, 64, 2, lora=lora, engine="vllm").memory
        assert whole.adapters_bytes == pytest.approx(3 * slots.slot_bytes)


def test_pefts_own_pair_stays_twice_as_wide_on_a_fused_weight() -> None:
    """PEFT 0.21: rank 2 r on gate_up_proj, A (2 r, H) and B (2 I, 2 r), where gate and up are named; no engine."""
    lora = gs.LoraConfig(rank=8, target_modules=["ffn"])
    right = 32 * 8 * 8 * (2 * 4096 + 2 * 2 * 14336 + 14336 + 4096)
    for engine in ("reference", "peft"):
        graph = gs.Deployment("mixtral-8x7b", "h100-sxm", lora=lora, engine=engine).decode(1, 1)
        assert lora_parameters_of(graph) == right


def test_an_engine_without_slots_for_experts_leaves_them_alone() -> None:
    for engine in ("vllm-0.5", "vllm-0.8", "peft", "slora", "sglang"):
        lora = gs.LoraConfig(rank=16, target_modules=["attn"])
        graph = gs.Deployment("mixtral-8x7b", "h100-sxm", lora=lora, engine=engine).decode(1, 1)
        assert not [op.role for _, op, _ in walk(graph) if op.adapter and op.role.startswith("expert_")]


def test_which_pairs_a_model_has_is_the_engines_word() -> None:
    experts = load_profile("vllm").experts
    assert experts.layout_of("gpt-oss-20b") == experts.layout_of("gpt_oss") == "fused"
    assert experts.layout_of("Qwen/Qwen3.5-35B-A3B") == experts.layout_of("qwen3_5_moe_text") == "fused"
    assert experts.layout_of("qwen3-30b-a3b") == experts.layout_of("mixtral-8x7b") == "projections"
