"""What unified paging makes of a deployment's memory."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.unified import unified_rules, unified_terms

LORA = gs.LoraConfig(rank=16, max_loras=16, max_lora_rank=64)


def deployed(lora: gs.LoraConfig | None = LORA) -> gs.Deployment:
    return gs.Deployment("llama-3.1-8b", "h100-sxm", lora=lora, engine="vllm")


@pytest.mark.slow
def test_slots_memory_goes_to_the_cache_and_adapters_take_what_their_ranks_have() -> None:
    plain = rules_of(deployed())
    rules, blocks = unified_rules(deployed(), 100, ranks=[8, 64] * 50)
    slots = gs.footprint(deployed())
    gained = (rules.kv_blocks - plain.kv_blocks) * plain.block_tokens * float(slots.kv_token_bytes)
    assert gained == pytest.approx(16 * float(slots.slot_bytes), rel=0.01)
    assert len(blocks) == 100 and blocks[1] == pytest.approx(8 * blocks[0], rel=0.15)
    block_bytes = float(slots.kv_token_bytes) * plain.block_tokens
    assert blocks[1] * block_bytes == pytest.approx(float(slots.slot_bytes), rel=0.1)  # of the slots' own rank
    assert rules.adapters.max_loras == 100


@pytest.mark.slow
def test_a_cache_of_a_given_size_is_the_pool() -> None:
    rules, _ = unified_rules(deployed(), 4, EngineLimits(kv_blocks=5000))
    assert rules.kv_blocks == 5000


def test_steps_are_priced_for_as_many_adapters_as_are_registered() -> None:
    told = EngineLimits(**{"--max-loras": 8, "max_num_seqs": 64})
    wide, limits = unified_terms(deployed(), 100, told)
    assert wide.lora is not None and wide.lora.max_loras == 100
    assert dict(limits.given) == {"max_num_seqs": 64}
    assert unified_terms(deployed(None), 4, told)[1] == told


def test_without_adapters_there_is_nothing_to_page() -> None:
    with pytest.raises(ConfigError, match="no LoraConfig"):
        unified_rules(deployed(None), 4)
