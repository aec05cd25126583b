"""What the caching allocator holds, replayed, against what is allocated at the same moments."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs
from graphsim.training import reserved as replayed
from graphsim.training.estimated import ComputedStep
from graphsim.training.memory import memory_of, persistent_of
from graphsim.training.train import setup_of

MODEL, DEVICE = "llama-3.2-1b", "h100-sxm"


@pytest.mark.parametrize("recipe", ["megatron-lm", "megatron-bridge", "torchtitan", "llm-foundry", "peft"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_replay_holds_at_least_what_is_allocated(recipe: str, accumulate: int) -> None:
    setup = setup_of(MODEL, DEVICE, batch=2, seq_len=1024, method="full", recipe=recipe, accumulate=accumulate)
    step = ComputedStep(setup)
    total = memory_of(step.numbers, setup, step.times.in_flight, lambda: step.stages).total_bytes
    persistent = persistent_of(step.numbers[0], setup)
    program = replayed.program_of(step.stages[0], persistent, 1.0, _at)
    events = replayed.events_of(program)
    held = replayed.CachingAllocator(capacity_bytes=np.inf)
    held.replay(events)
    assert held.peak_reserved_bytes >= 0.995 * float(total)


def _at(number: gs.units.Num) -> float:
    return float(np.ravel(number)[0])


@pytest.mark.parametrize("recipe", ["peft", "megatron-bridge", "torchtune"])
def test_rank_0_keeps_and_holds_nothing_for_a_backward_pass(recipe: str) -> None:
    memory = gs.train(MODEL, DEVICE, batch=2, seq_len=1024, lora=gs.LoraConfig(rank=0), recipe=recipe).memory
    trained = gs.train(MODEL, DEVICE, batch=2, seq_len=1024, lora=gs.LoraConfig(rank=1), recipe=recipe).memory
    assert memory.gradients_bytes == memory.optimizer_bytes == memory.adapters_bytes == 0.0
    assert memory.logits_bytes <= trained.logits_bytes and memory.total_bytes < trained.total_bytes


def test_rank_0_holds_no_gradient_of_logits() -> None:
    """PEFT's loss without a gradient: 2 bytes of logits, their copy in fp32 and its log-softmax for each logit."""
    memory = gs.train(MODEL, DEVICE, batch=2, seq_len=1024, lora=gs.LoraConfig(rank=0), recipe="peft").memory
    assert memory.logits_bytes <= (2 + 4 + 4) * 2 * 1024 * 128256
