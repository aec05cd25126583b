"""Advice and break-even: numbers that single simulations confirm."""

from __future__ import annotations

import json

import numpy as np
import pytest

import graphsim as gs

ASKED = ("llama-3.1-8b", "h100-sxm", 16, 256, 64)
MANY = gs.LoraConfig(rank=16, active_adapters=4, max_loras=64, max_lora_rank=64)


def test_break_even_is_where_the_curves_cross() -> None:
    found = gs.break_even("llama-3.1-8b", "l4", 1, 512, 128, lora=gs.LoraConfig(rank=16), engine="reference")
    tokens = [found.tokens * 0.99, found.tokens, found.tokens * 1.01]
    curve = gs.break_even_curve(
        "llama-3.1-8b", "l4", tokens, input_tokens=512, lora=gs.LoraConfig(rank=16), engine="reference"
    )
    gap = (curve["merge_s"] - curve["dynamic_s"]).to_numpy()
    assert gap[0] > 0 > gap[2]
    assert gap[1] == pytest.approx(0.0, abs=1e-9)
    assert found.requests == pytest.approx(found.tokens / 128)


def test_break_even_agrees_with_the_comparison() -> None:
    frame = gs.compare_lora("llama-3.1-8b", "l4", 4, 100, 50, engine="reference")
    found = gs.break_even("llama-3.1-8b", "l4", 4, 100, 50, engine="reference")
    assert frame["break_even_tokens"]["dynamic"] == pytest.approx(found.tokens, rel=1e-6)


def test_switching_in_turn_costs_a_switch_per_turn_but_the_first() -> None:
    found = gs.break_even("llama-3.1-8b", "l4", engine="reference")
    curve = gs.break_even_curve("llama-3.1-8b", "l4", [100.0, 1000.0], tokens_per_turn=100.0, engine="reference")
    extra = (curve["switching_s"] - curve["merge_s"]).to_numpy()
    assert extra[0] == pytest.approx(0.0) and extra[1] == pytest.approx(9 * found.switch_s)


def test_one_adapter_for_all_is_merged_and_several_are_not() -> None:
    one = gs.lora_advice(*ASKED, lora=gs.LoraConfig(rank=16), engine="reference")
    several = gs.lora_advice(*ASKED, lora=MANY, engine="vllm")
    assert (one.choice, several.choice) == ("merge", "dynamic")
    assert one.flags == ()
    assert several.flags == ("--enable-lora", "--max-loras 4", "--max-lora-rank 16")


def test_every_lever_saves_what_a_simulation_of_it_says() -> None:
    advice = gs.lora_advice(*ASKED, lora=MANY, engine="vllm")
    now = gs.simulate(*ASKED, lora=MANY, engine="vllm").tpot_s
    slots = next(lever for lever in advice.levers if "--max-loras" in lever.name)
    changed = gs.LoraConfig(rank=16, active_adapters=4, max_loras=4, max_lora_rank=64)
    assert slots.tpot_s == pytest.approx(gs.simulate(*ASKED, lora=changed, engine="vllm").tpot_s)
    assert slots.saved == pytest.approx(1 - slots.tpot_s / now)
    times = [lever.tpot_s for lever in advice.levers]
    assert times == sorted(times) and times[-1] < now


def test_parts_are_the_time_that_the_adapter_adds_to_a_step() -> None:
    advice = gs.lora_advice(*ASKED, lora=MANY, engine="vllm")
    with_, without = (gs.simulate(*ASKED, lora=lora, engine="vllm").decode.latency_s for lora in (MANY, None))
    assert sum(advice.parts.values()) == pytest.approx(with_ - without, rel=1e-6)
    assert advice.parts["empty tiles"] > 0


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("lora", [gs.LoraConfig(variant="dora"), gs.LoraConfig(fully_sharded_loras=True)])
def test_parts_count_what_variants_and_shards_add(lora: gs.LoraConfig, tp: int) -> None:
    """Nodes run one after another on a captured graph, so the parts are the difference."""
    asked = ("llama-3.1-8b", "h100-sxm", 16, 256, 64, gs.Parallelism(tp=tp))
    advice = gs.lora_advice(*asked, lora=lora, engine="reference")
    with_, without = (
        gs.simulate(*asked, lora=adapter, engine="reference").decode.latency_s for adapter in (lora, None)
    )
    assert sum(advice.parts.values()) == pytest.approx(with_ - without, rel=1e-6)
    exchanged = lora.fully_sharded_loras or lora.variant == "dora"  # whose norm is summed over devices
    assert (advice.parts["collectives"] > 0) == (tp > 1 and exchanged)
    assert (advice.parts["weight norms"] > 0) == (lora.variant == "dora")


def test_what_merging_saves_is_a_part_of_the_dynamic_time() -> None:
    advice = gs.lora_advice(*ASKED, lora=gs.LoraConfig(variant="dora"), engine="peft")
    saved = 1 - gs.simulate(*ASKED, engine="peft").latency_s / (
        gs.simulate(*ASKED, lora=gs.LoraConfig(variant="dora"), engine="peft").latency_s
    )
    assert f"saves {saved:.1%} of every request" in advice.reason
    assert advice.levers[0].name == "plain LoRA instead of DoRA"


@pytest.mark.parametrize("variant", ["alora"])
def test_what_cannot_be_merged_is_applied_dynamically(variant: str) -> None:
    lora = gs.LoraConfig(variant=variant, rank=16)
    advice = gs.lora_advice(*ASKED, lora=lora, engine="reference")
    assert advice.choice == "dynamic" and "cannot be merged" in advice.reason and advice.flags == ()
    assert np.isinf(gs.break_even(*ASKED, lora=lora, engine="reference").tokens)
    assert list(gs.compare_lora(*ASKED, lora=lora, engine="reference").index) == ["base", "dynamic"]
    with pytest.raises(gs.ConfigError, match="cannot be merged"):
        gs.break_even_curve("gpt-2", "l4", lora=lora, engine="reference")


def test_cautions_say_what_stands_in_the_way() -> None:
    rounded = gs.lora_advice("llama-3.1-8b", "l4", precision="nf4", lora=gs.LoraConfig(), engine="reference")
    assert "stored in nf4" in rounded.cautions[0]
    large = gs.lora_advice("llama-3.1-70b", "l4", lora=gs.LoraConfig(), engine="reference")
    assert any("does not fit" in caution for caution in large.cautions) and "but it does not fit" in str(large)
    wide = gs.lora_advice(*ASKED, lora=gs.LoraConfig(rank=1000, active_adapters=2), engine="reference")
    assert "above what vLLM takes" in wide.cautions[0] and wide.flags == ()


def test_flags_are_the_engines_own_and_follow_the_levers() -> None:
    some = gs.LoraConfig(rank=16, active_adapters=3, adapter_share=0.5)
    advice = gs.lora_advice(*ASKED, lora=some, engine="sglang")
    assert advice.flags == ("--enable-lora", "--max-loras-per-batch 4", "--max-lora-rank 16")
    idle = gs.lora_advice(*ASKED, lora=gs.LoraConfig(active_adapters=0), engine="vllm")
    assert idle.flags == () and "no request has an adapter" in idle.reason
    wide = gs.LoraConfig(rank=64, active_adapters=4, max_loras=8)
    asked = ("llama-3.1-70b", "h100-sxm", 8, 256, 64, gs.Parallelism(tp=4))
    assert "--fully-sharded-loras" in gs.lora_advice(*asked, lora=wide, engine="vllm").flags


def test_adapters_of_mixed_ranks_have_advice_too() -> None:
    mixed = gs.LoraConfig(mixed_ranks=[8, 16, 64], active_adapters=3)
    advice = gs.lora_advice(*ASKED, lora=mixed, engine="vllm")
    half = next(lever for lever in advice.levers if lever.name == "half the rank (32)")
    changed = gs.LoraConfig(rank=32, active_adapters=3)
    assert half.tpot_s == pytest.approx(gs.simulate(*ASKED, lora=changed, engine="vllm").tpot_s)


def test_an_array_of_scenarios_is_one_sentence() -> None:
    with pytest.raises(gs.ConfigError, match="arrays of scenarios"):
        gs.lora_advice("gpt-2", "l4", np.array([1, 8]), engine="reference")  # type: ignore[arg-type]


def test_advice_is_text_for_people_and_json_for_scripts() -> None:
    advice = gs.lora_advice(*ASKED, lora=MANY, engine="vllm")
    assert "--max-loras 4" in str(advice) and "where the adapter's time goes" in str(advice)
    assert json.loads(json.dumps(advice.to_dict()))["choice"] == "dynamic"


def test_an_adapter_that_costs_nothing_never_pays_to_merge() -> None:
    found = gs.break_even("gpt-2", "l4", lora=gs.LoraConfig(rank=0), engine="reference")
    assert np.isinf(found.tokens)
    assert "never pays" in gs.lora_advice("gpt-2", "l4", lora=gs.LoraConfig(rank=0), engine="reference").reason


def test_senseless_tokens_are_one_sentence() -> None:
    with pytest.raises(gs.ConfigError, match="tokens = "):
        gs.break_even_curve("gpt-2", "l4", [-1.0])
