"""Advice and break-even: numbers that single simulations confirm."""

from __future__ import annotations

import json

import numpy as np
import pytest

import graphsim as gs

ASKED = ("llama-3.1-8b", "h100-sxm", 16, 256, 64)
MANY = gs.LoraConfig(rank=16, active_adapters=4, max_loras=64, max_lora_rank=64)


def test_break_even_is_where_the_curves_cross() -> None:
    found = gs.break_even("llama-3.1-8b", "l4", 1, 512, 128, lora=gs.LoraConfig(rank=16))
    curve = gs.break_even_curve("llama-3.1-8b", "l4", [found.tokens * 0.99, found.tokens, found.tokens * 1.01])
    gap = (curve["merge_s"] - curve["dynamic_s"]).to_numpy()
    assert gap[0] > 0 > gap[2]
    assert gap[1] == pytest.approx(0.0, abs=1e-9)
    assert found.requests == pytest.approx(found.tokens / 128)


def test_break_even_agrees_with_the_comparison() -> None:
    frame = gs.compare_lora("llama-3.1-8b", "l4", 4, 100, 50)
    found = gs.break_even("llama-3.1-8b", "l4", 4, 100, 50)
    assert frame["break_even_tokens"]["dynamic"] == pytest.approx(found.tokens, rel=1e-6)


def test_switching_in_turn_costs_a_switch_per_turn_but_the_first() -> None:
    found = gs.break_even("llama-3.1-8b", "l4")
    curve = gs.break_even_curve("llama-3.1-8b", "l4", [100.0, 1000.0], tokens_per_turn=100.0)
    extra = (curve["switching_s"] - curve["merge_s"]).to_numpy()
    assert extra[0] == pytest.approx(0.0) and extra[1] == pytest.approx(9 * found.switch_s)


def test_one_adapter_for_all_is_merged_and_several_are_not() -> None:
    one = gs.lora_advice(*ASKED, lora=gs.LoraConfig(rank=16))
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


def test_advice_is_text_for_people_and_json_for_scripts() -> None:
    advice = gs.lora_advice(*ASKED, lora=MANY, engine="vllm")
    assert "--max-loras 4" in str(advice) and "where the adapter's time goes" in str(advice)
    assert json.loads(json.dumps(advice.to_dict()))["choice"] == "dynamic"


def test_an_adapter_that_costs_nothing_never_pays_to_merge() -> None:
    found = gs.break_even("gpt-2", "l4", lora=gs.LoraConfig(rank=0))
    assert np.isinf(found.tokens)
    assert "never pays" in gs.lora_advice("gpt-2", "l4", lora=gs.LoraConfig(rank=0)).reason


def test_senseless_tokens_are_one_sentence() -> None:
    with pytest.raises(gs.ConfigError, match="tokens = "):
        gs.break_even_curve("gpt-2", "l4", [-1.0])
