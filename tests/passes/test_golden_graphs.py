"""Lowered graphs of each kind are the ones that were reviewed; together they come through every pass of the library.

GRAPHSIM_UPDATE_GOLDEN=1 writes down what they are now.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import graphsim as gs

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = gs.LoraConfig(rank=8, active_adapters=2)
SOME = gs.LoraConfig(rank=8, target_modules="all-linear", layers_to_transform=[0, 5])
DEPLOYMENTS = {
    "llama-3.2-1b.vllm-0.5-tp2-nf4": {
        "engine": "vllm-0.5", "lora": PLAIN, "precision": "nf4", "parallelism": gs.Parallelism(tp=2),
    },
    "llama-3.1-8b.sglang-tp2-sharded": {
        "engine": "sglang", "lora": gs.LoraConfig(rank=8, fully_sharded_loras=True),
        "parallelism": gs.Parallelism(tp=2),
    },
    "mixtral-8x7b.peft-tp2-ep2": {"engine": "peft", "lora": PLAIN, "parallelism": gs.Parallelism(tp=2, ep=2)},
    "mixtral-8x7b.vllm-ep4": {"engine": "vllm", "lora": PLAIN, "parallelism": gs.Parallelism(ep=4)},
    "qwen3-30b-a3b.sglang-tbo-ep2": {"engine": "sglang-deepep-tbo", "parallelism": gs.Parallelism(ep=2)},
    "gpt-2.merge-pp2": {
        "lora": gs.LoraConfig(strategy="merge"), "parallelism": gs.Parallelism(pp=2), "input_tokens": 64,
    },
    "gpt-2.dora-peft": {"engine": "peft", "lora": gs.LoraConfig(variant="dora", target_modules=["attn"])},
    "gpt-2.some-layers": {"lora": SOME},
}  # fmt: skip


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_lowered_graph_is_the_one_that_was_reviewed(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    model = next(one for one in gs.list_models() if name.startswith(f"{one}."))
    text = gs.to_text(gs.build_graph(model, "decode", 4, **DEPLOYMENTS[name])) + "\n"  # type: ignore[arg-type]
    if os.environ.get("GRAPHSIM_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "differs; see this file's docstring for how to renew golden files"
