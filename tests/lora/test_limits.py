"""Engines' limits are data: each rule with its source, inherited one by one, and ranks reserved as offered."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.hardware import ARCHITECTURES
from graphsim.lora.limits import RULES, Limit
from graphsim.lora.profile import list_engines, load_profile

ENGINES = list_engines()


def fields_of(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_rule_of_an_engine_has_a_source(engine: str) -> None:
    limits = load_profile(engine).limits.rules
    assert limits
    for limit in limits:
        assert limit.source.strip(), f"{engine}: give limits.{limit.rule} a source"


@pytest.mark.parametrize("engine", ENGINES)
def test_words_name_no_more_than_the_rule_finds(engine: str) -> None:
    """A rule's own template names what may be told of it; an engine's words add the module at most."""
    more = {"size", "block", "module", "adapters", "slots", "tokens", "positions", "offered"}
    for limit in load_profile(engine).limits.rules:
        for kind in ("", *dict(limit.words)):
            assert fields_of(limit.told(kind)) <= fields_of(RULES[limit.rule][1]) | more, f"{engine}: {limit.rule}"


def test_architectures_that_engines_refuse_are_those_of_devices() -> None:
    named = {name for engine in ENGINES for limit in load_profile(engine).limits.rules for name in limit.architectures}
    assert named <= set(ARCHITECTURES) - {"other", "ampere", "ada", "hopper", "blackwell", "blackwell-workstation"}


def test_a_profile_inherits_its_bases_rules_and_changes_them_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: vllm\nlimits:\n  slots: null\n  rank: {says: never, source: mine}\n"
        "  max_lora_rank: {offered: [4], source: x}\n"
    )
    mine, base = load_profile(path).limits, load_profile("vllm").limits
    assert mine.get("slots") is None and base.get("slots") is not None
    assert mine.get("rank") == Limit(rule="rank", says="never") and mine.get("blocks") == base.get("blocks")
    assert mine.reserved(2.0) == 4.0 and base.reserved(2.0) == 8.0


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{speed: {source: x}}", "limits.speed .* is not a rule"),
        ("{rank: {}}", "limits.rank.source is missing"),
        ("{rank: {source: x, models: some}}", "limits.rank.models = 'some' is not allowed"),
        ("{max_lora_rank: {source: x, offered: [a]}}", "limits.max_lora_rank.offered .* whole numbers"),
        ("{kernels: {source: x, architectures: [3]}}", "limits.kernels.architectures .* names"),
    ],
)
def test_mistakes_in_limits_are_named(tmp_path: Path, limits: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: vllm\nlimits: {limits}\n")
    with pytest.raises(gs.ConfigError, match=said):
        load_profile(path)


def test_a_rank_is_reserved_as_the_smallest_one_offered() -> None:
    """vLLM 0.33's --max-lora-rank takes 1, 8, 16, 32, 64, 128, 256, 320 and 512; 0.5's 8 to 64."""
    ranks = np.array([0.0, 1.0, 2.0, 8.0, 9.0, 24.0, 257.0, 512.0])
    assert load_profile("vllm").limits.reserved(ranks).tolist() == [0, 1, 8, 8, 16, 32, 320, 512]
    assert load_profile("vllm-0.5").limits.reserved(ranks[:6]).tolist() == [0, 8, 8, 8, 16, 32]
    assert load_profile("sglang").limits.reserved(ranks).tolist() == ranks.tolist(), "it offers any"


def test_slots_are_padded_to_the_rank_that_is_reserved() -> None:
    """q and v of Llama-3.2-1B: 16 layers, 32 heads and 8 for keys and values, of 64 each."""

    def slot(rank: int, engine: str) -> float:
        lora = gs.LoraConfig(rank=rank, target_modules=["q_proj", "v_proj"], max_loras=1)
        return float(gs.footprint("llama-3.2-1b", "h100-sxm", lora, engine=engine).slot_bytes)

    assert slot(24, "sglang") == 24 * 16 * (2048 + 2048 + 2048 + 512) * 2
    assert slot(24, "vllm") == slot(32, "vllm") and slot(33, "vllm") == slot(64, "vllm")
