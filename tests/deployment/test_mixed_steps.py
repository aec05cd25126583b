"""Steps that hold prompts and generated tokens at once, as engines with chunked prefill run them."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.graph.validation import validate
from graphsim.models.phase import generation_of, mixed, prompts_of
from graphsim.ops import Attention, KvCache, SomeRows

FEW = ("llama-3.1-8b", "deepseek-v3.2", "deepseek-v4-flash", "gemma-2b", "flan-t5-large", "minimax-m3")
"""Heads, absorbed latents with an indexer, compressed caches, one head for keys, an encoder, selected blocks."""


def valid_step(model: str, tp: int, lora: gs.LoraConfig | None) -> None:
    deployment = gs.Deployment(model, "h100-sxm", engine="vllm", parallelism=gs.Parallelism(tp=tp), lora=lora)
    phase = mixed(prompts_of(1, 100, 5050, 100, 1), generation_of(4, 2000))
    validate(deployment.step([phase]))


@pytest.mark.parametrize("model", [name for name in FEW if name in gs.list_models()])
@pytest.mark.parametrize("tp", [1, 2])
def test_each_part_takes_its_own_rows(model: str, tp: int) -> None:
    """The caches and attentions of both parts took the rows of the whole step, and `validate` said so."""
    valid_step(model, tp, None)


@pytest.mark.slow
@pytest.mark.parametrize("model", gs.list_models())
def test_mixed_steps_of_every_model_are_valid(model: str) -> None:
    adapter = gs.LoraConfig(rank=8, target_modules="all-linear")
    for tp, lora in ((1, None), (2, None), (1, adapter)):
        try:
            valid_step(model, tp, lora)
        except gs.ConfigError:
            continue


def test_steps_of_one_part_hold_no_rows_of_others() -> None:
    deployment = gs.Deployment("gpt-2", "h100-sxm", engine="vllm")
    kinds = (Attention, KvCache, SomeRows)
    for phase, expected in ((generation_of(4, 2000), 0), (mixed(prompts_of(1, 9, 45, 9, 1), generation_of(1, 5)), 6)):
        [body] = [op.body for _, op in deployment.step([phase]).nodes(data="op") if isinstance(op, gs.ops.Repeat)]
        found = [op for _, op in body.nodes(data="op") if isinstance(op, kinds)]
        assert sum(isinstance(op, SomeRows) for op in found) == expected
