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
    for engine in ("vllm-0.5", "vllm-2025-05", "peft", "slora", "sglang"):
        lora = gs.LoraConfig(rank=16, target_modules=["attn"])
        graph = gs.Deployment("mixtral-8x7b", "h100-sxm", lora=lora, engine=engine).decode(1, 1)
        assert not [op.role for _, op, _ in walk(graph) if op.adapter and op.role.startswith("expert_")]


def test_which_pairs_a_model_has_is_the_engines_word() -> None:
    experts = load_profile("vllm").experts
    assert experts.layout_of("gpt-oss-20b") == experts.layout_of("gpt_oss") == "fused"
    assert experts.layout_of("Qwen/Qwen3.5-35B-A3B") == experts.layout_of("qwen3_5_moe_text") == "fused"
    assert experts.layout_of("qwen3-30b-a3b") == experts.layout_of("mixtral-8x7b") == "projections"
